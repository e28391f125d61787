"""The external tools: what each is needed for, what works without it, how to get it.

Its one rule: data only. A new tool is a new row; toolchain/tools.py finds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """A tool as we know it, whether it is here or not."""

    name: str
    needed_for: str
    without: str
    how_to_get: str
    programs: tuple[str, ...] = ()
    """Names on PATH, the first found is taken; none for what is only a Python package."""
    version_args: tuple[str, ...] = ("--version",)
    distribution: str = ""
    """The Python package that is the tool, or that ships it as `shipped`."""
    shipped: str = ""
    variable: str = ""
    """Of the environment, where the name itself makes no good one."""
    overlay: str = ""
    """Folder under the environment's prefix for a package that must not be in site-packages."""

    @property
    def env(self) -> str:
        """The environment variable that holds the program's path; empty for a Python package."""
        return self.variable or (re.sub(r"[^A-Z0-9]", "_", self.name.upper()) if self.programs else "")


def _extra(name: str) -> str:
    return f"pip install 'bitwright[{name}]'"


def _vendor(
    name: str, needed_for: str, how: str, version: str = "--version", without: str = "", variable: str = ""
) -> Spec:
    """A vendor's tool: large, licensed, and put on PATH by a script of its own."""
    without = without or "projects are emitted and simulated in C"
    return Spec(name, needed_for, without, how, programs=(name,), version_args=(version,), variable=variable)


_VITIS = "source settings64.sh of Vitis 2023.2 or newer, often /tools/Xilinx/Vitis/VERSION/settings64.sh"
_VIVADO = "source settings64.sh of Vivado, often /tools/Xilinx/Vivado/VERSION/settings64.sh"
_VIVADO_HLS = "source settings64.sh of Vivado 2020.1 or older, often /tools/Xilinx/Vivado/2020.1/settings64.sh"
_INTEL_HLS = "source init_hls.sh of the Intel HLS compiler, often /opt/intelFPGA_pro/VERSION/hls/init_hls.sh"
_QUARTUS = "put quartus/bin of Quartus Prime on PATH, often /opt/intelFPGA_pro/VERSION/quartus/bin"
_ONEAPI = "source setvars.sh of oneAPI 2024.2 or 2025.0, the last with FPGAs, often /opt/intel/oneapi/setvars.sh"
_CATAPULT = "put bin of Catapult's MGC_HOME on PATH"
_SHLS = "put SmartHLS/bin of Libero SoC on PATH, often /usr/local/microchip/Libero_SoC_VERSION/SmartHLS/bin"
_FRAMEWORK = "saved models are read all the same"
TOOLS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec(
            "arm-none-eabi-gcc",
            "firmware for Cortex-M boards",
            "zig compiles it, to more instructions",
            "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi",
            programs=("arm-none-eabi-gcc",),
        ),
        Spec(
            "riscv64-unknown-elf-gcc",
            "firmware for RV32 boards",
            "zig compiles it",
            "apt-get install gcc-riscv64-unknown-elf",
            programs=("riscv64-unknown-elf-gcc", "riscv32-unknown-elf-gcc", "riscv-none-elf-gcc"),
        ),
        Spec(
            "avr-gcc",
            "firmware for the ATmega328P",
            "all other boards",
            "apt-get install gcc-avr avr-libc",
            programs=("avr-gcc",),
        ),
        Spec(
            "simavr",
            "simulated board simavr_uno",
            "firmware for it is built, not run",
            "apt-get install simavr libsimavr-dev",
            programs=("simavr",),
            version_args=("--help",),
        ),
        Spec(
            "avrdude",
            "flashing an Arduino Uno",
            "the image is built; flash it with your own tool",
            "apt-get install avrdude",
            programs=("avrdude",),
            version_args=("-?",),
        ),
        Spec(
            "host-cc",
            "board native",
            "zig compiles it; no sanitizers",
            "apt-get install gcc libc6-dev",
            programs=("gcc", "cc", "clang"),
        ),
        Spec(
            "host-cxx",
            "C simulation of HLS projects",
            "HLS projects are emitted, not simulated (zig's library does not take their emulated types)",
            "apt-get install g++",
            programs=("g++", "c++"),
        ),
        Spec(
            "zig",
            "compiling where there is no GCC, and for a Cortex-M55",
            "GCC compiles everything, for a Cortex-M55 to more instructions",
            _extra("compiler"),
            programs=("zig",),
            version_args=("version",),
            distribution="ziglang",
            shipped="ziglang/zig",
        ),
        Spec(
            "qemu-system-arm",
            "emulated boards qemu_mps2_*, qemu_mps3_an547 and qemu_microbit",
            "unicorn_m4 emulates a Cortex-M4",
            "apt-get install qemu-system-arm",
            programs=("qemu-system-arm",),
        ),
        Spec(
            "qemu-system-riscv32",
            "emulated board qemu_virt_rv32",
            "firmware for it is built, not run",
            "apt-get install qemu-system-misc",
            programs=("qemu-system-riscv32",),
        ),
        Spec(
            "unicorn",
            "emulated board unicorn_m4",
            "qemu_mps2_an386 emulates a Cortex-M4",
            _extra("emulator"),
            distribution="unicorn",
        ),
        Spec(
            "pyelftools",
            "emulated board unicorn_m4",
            "qemu_mps2_an386 emulates a Cortex-M4",
            _extra("emulator"),
            distribution="pyelftools",
        ),
        Spec(
            "capstone",
            "modelled cycles of unicorn_m4",
            "its instructions are counted all the same",
            _extra("emulator"),
            distribution="capstone",
        ),
        Spec(
            "node",
            "emulated board rp2040js_pico",
            "firmware for it is built, not run",
            "apt-get install nodejs npm",
            programs=("node", "nodejs"),
        ),
        Spec(
            "rp2040js",
            "emulated board rp2040js_pico",
            "firmware for it is built, not run",
            "python3 scripts/setup.py full",
            overlay="npm/node_modules/rp2040js",
        ),
        Spec(
            "verilator",
            "simulated FPGA boards verilator_*",
            "FPGA projects are emitted and simulated in C",
            "apt-get install verilator g++ make",
            programs=("verilator",),
        ),
        Spec(
            "openocd",
            "flashing STM32 and Pico boards over a debug probe",
            "the image is built; flash it with your own tool",
            "apt-get install openocd",
            programs=("openocd",),
        ),
        Spec(
            "picotool",
            "flashing a Pico over USB",
            "the image is built; openocd flashes it over a probe",
            "build it from the Pico SDK, or apt-get install picotool where Debian is 13 or newer",
            programs=("picotool",),
            version_args=("version",),
        ),
        Spec(
            "esptool.py",
            "flashing an ESP32-C3",
            "the image is built; flash it with your own tool",
            "pip install esptool",
            programs=("esptool.py", "esptool"),
            version_args=("version",),
        ),
        Spec(
            "dfu-util",
            "flashing a GD32VF103 over USB",
            "the image is built; flash it with your own tool",
            "apt-get install dfu-util",
            programs=("dfu-util",),
        ),
        Spec(
            "tensorflow", "training, live Keras models, verify", _FRAMEWORK, _extra("qkeras"), distribution="tensorflow"
        ),
        Spec("qkeras", "training, live Keras models, verify", _FRAMEWORK, _extra("qkeras"), distribution="qkeras"),
        Spec(
            "qkeras-v3",
            "verify of models of the Keras-3 fork",
            _FRAMEWORK,
            "python3 scripts/setup.py full",
            overlay="overlays/qkeras3",
        ),
        Spec("torch", "training, live Brevitas models", _FRAMEWORK, _extra("brevitas"), distribution="torch"),
        Spec("brevitas", "training, live Brevitas models", _FRAMEWORK, _extra("brevitas"), distribution="brevitas"),
        _vendor("vitis-run", "synthesis of hls4ml tool Vitis", _VITIS),
        _vendor("vivado_hls", "synthesis of hls4ml tools Vivado and VivadoAccelerator", _VIVADO_HLS, "-version"),
        _vendor("vivado", "place and route, and bitstreams of AMD FPGAs", _VIVADO, "-version"),
        _vendor("i++", "synthesis of hls4ml tool Quartus", _INTEL_HLS, variable="INTEL_HLS"),
        _vendor("quartus_sh", "place and route of Intel FPGAs", _QUARTUS),
        _vendor("icpx", "synthesis of hls4ml tool oneAPI", _ONEAPI),
        _vendor("catapult", "synthesis of hls4ml tool Catapult", _CATAPULT, "-version"),
        _vendor("shls", "synthesis of hls4ml tool Libero", _SHLS, "-v"),
        _vendor("cmake", "synthesis of hls4ml tool oneAPI", "apt-get install cmake"),
        _vendor("make", "synthesis of hls4ml tools oneAPI and Quartus", "apt-get install make"),
        Spec("hls4ml", "boards whose backend is 'hls4ml'", "all other boards", _extra("hls4ml"), distribution="hls4ml"),
    )
}

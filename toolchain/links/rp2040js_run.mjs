/* Runs an image on rp2040js (npm, MIT), for toolchain/links/rp2040js.py: `node rp2040js_run.mjs PACKAGE`. On standard input
 * come the length of the flash image (32 bits, little-endian), the image, and then what UART0 receives; a zero byte and then
 * what UART0 sends go to standard output.
 *
 * Rule: time is cycles and nothing else. SysTick counts each once (rp2040js's own goes by nanoseconds in floating point and
 * loses a tick a period), and while the firmware waits for a byte that has not come, nothing runs at all. */
import { pathToFileURL } from 'node:url';
import { writeSync } from 'node:fs';

const { RP2040, LogLevel, ConsoleLogger } = await import(pathToFileURL(process.argv[2] + '/dist/esm/index.js'));

const BOOT2_IN_RAM = 0x20041f00; // where the boot ROM copies the second stage to, RP2040 datasheet 2.8.1.3.1
const BOOT2_BYTES = 256;
const SLICE = 200_000; // instructions between two looks at the standard input
const IDLE_POLLS = 16; // of an empty receiver, one after the other
const UARTDR = 0x00, UARTFR = 0x18, RXFE = 1 << 4, RXFF = 1 << 6, TXFE = 1 << 7;

const mcu = new RP2040();
if (LogLevel !== undefined) mcu.logger = new ConsoleLogger(LogLevel.Error, false);
const { core, ppb } = mcu;
let cycles = 0, broken = false;
mcu.onBreak = () => { broken = true; };

/* SysTick, Armv6-M Architecture Reference Manual B3.3: down to 0, which sets it pending, then from the reload value. */
const systick = { enabled: false, interrupt: false, reload: 0, zero: 0, flag: false, next: Infinity };
const period = () => systick.reload + 1;
function systickRead(offset) {
  if (offset === 0x10) {
    const value = (systick.flag ? 1 << 16 : 0) | 4 | (systick.interrupt ? 2 : 0) | (systick.enabled ? 1 : 0);
    systick.flag = false;
    return value;
  }
  if (offset === 0x14) return systick.reload;
  const since = (cycles - systick.zero) % period();
  return !systick.enabled || since === 0 ? 0 : period() - since;
}
function systickWrite(offset, value) {
  if (offset === 0x10) {
    systick.enabled = (value & 1) !== 0;
    systick.interrupt = (value & 2) !== 0;
  } else if (offset === 0x14) {
    systick.reload = value & 0xffffff;
  } else {
    systick.flag = false;
  }
  systick.zero = cycles; // ours: every write starts it from 0, where hardware goes on counting
  systick.next = systick.enabled ? cycles + period() : Infinity;
}
const ppbRead = ppb.readUint32.bind(ppb), ppbWrite = ppb.writeUint32.bind(ppb);
ppb.readUint32 = (offset) => (offset >= 0x10 && offset <= 0x18 ? systickRead(offset) : ppbRead(offset));
ppb.writeUint32 = (offset, value) =>
  offset >= 0x10 && offset <= 0x18 ? systickWrite(offset, value) : ppbWrite(offset, value);

/* UART0's data and flags; the rest of it is rp2040js's. */
const uart = mcu.uart[0];
const input = [];
let polls = 0, output = [];
const uartRead = uart.readUint32.bind(uart);
uart.readUint32 = (offset) => {
  if (offset === UARTFR) {
    polls++;
    return (input.length === 0 ? RXFE : 0) | (input.length >= 32 ? RXFF : 0) | TXFE;
  }
  if (offset === UARTDR) {
    polls = 0;
    return input.length === 0 ? 0 : input.shift();
  }
  return uartRead(offset);
};
uart.onByte = (byte) => {
  polls = 0;
  output.push(byte);
};

function flush() {
  if (output.length === 0) return;
  let data = Uint8Array.from(output);
  output = [];
  while (data.length > 0) {
    try {
      data = data.subarray(writeSync(1, data));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

let running = false;
function run() {
  running = true;
  for (let i = 0; i < SLICE; i++) {
    cycles += core.executeInstruction();
    if (cycles >= systick.next) {
      systick.next += period();
      systick.flag = true;
      if (systick.interrupt) {
        core.pendingSystick = true;
        core.interruptsUpdated = true;
      }
    }
    if (broken) {
      flush();
      process.stderr.write(`breakpoint at 0x${core.PC.toString(16)}\n`);
      process.exit(1);
    }
    if (polls >= IDLE_POLLS && input.length === 0) {
      running = false;
      break;
    }
  }
  flush();
  if (running) setImmediate(run);
}

function start(image) {
  mcu.flash.set(image);
  mcu.sram.set(image.subarray(0, BOOT2_BYTES), BOOT2_IN_RAM - 0x20000000); // as the boot ROM does
  core.SP = BOOT2_IN_RAM;
  core.LR = 0;
  core.PC = BOOT2_IN_RAM;
  output.push(0); // tells that it runs
  flush();
  run();
}

let head = Buffer.alloc(0), wanted = -1;
process.stdin.on('data', (data) => {
  if (wanted < 0 || head !== null) {
    head = Buffer.concat([head, data]);
    if (wanted < 0 && head.length >= 4) wanted = 4 + head.readUInt32LE(0);
    if (wanted < 0 || head.length < wanted) return;
    const rest = head.subarray(wanted);
    const image = head.subarray(4, wanted);
    head = null;
    input.push(...rest);
    start(image);
    return;
  }
  for (const byte of data) input.push(byte);
  polls = 0;
  if (!running) run();
});
process.stdin.on('end', () => process.exit(0));

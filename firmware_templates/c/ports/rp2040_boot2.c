/* rp2040_boot2.S assembled, and at [63] the CRC-32 (04C11DB7, not reflected, from all ones) the ROM wants of the 252 bytes
 * before it. Words, because the CRC cannot be had from a linker. */
#include <stdint.h>

__attribute__((section(".boot2"), used)) static const uint32_t boot2[64] = {
    /* clang-format off */
    0x2100480Au, 0x21026081u, 0x49096141u, 0x21006001u, 0x49086041u, 0x60114A08u,
    0x60812101u, 0x49084807u, 0x68016008u, 0x8808F381u, 0x47086841u, 0x18000000u,
    0x001F0300u, 0x03000218u, 0x180000F4u, 0x10000100u, 0xE000ED08u,
    [63] = 0x621CA031u,
    /* clang-format on */
};

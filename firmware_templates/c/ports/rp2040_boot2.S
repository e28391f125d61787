/* Second-stage loader of the RP2040: its ROM copies the first 256 bytes of flash to RAM, checks their CRC and jumps there
 * (datasheet 2.8.1.3.1). This one sets the flash interface to plain 03h reads (4.10) at half the system clock and starts
 * the image behind it. rp2040_boot2.c holds these instructions as words with their CRC; tests/test_firmware.py assembles
 * this file and compares. */
    .syntax unified
    .cpu cortex-m0plus
    .thumb
    .section .text
    .global boot2
boot2:
    ldr r0, ssi
    movs r1, #0
    str r1, [r0, #0x08]     /* SSIENR: off while configuring */
    movs r1, #2
    str r1, [r0, #0x14]     /* BAUDR */
    ldr r1, ctrlr0
    str r1, [r0, #0x00]     /* CTRLR0: 32-bit frames, serial, EEPROM read */
    movs r1, #0
    str r1, [r0, #0x04]     /* CTRLR1: one frame */
    ldr r1, spi_ctrlr0
    ldr r2, spi_ctrlr0_address
    str r1, [r2]            /* SPI_CTRLR0: command 03h of 8 bits, address of 24 */
    movs r1, #1
    str r1, [r0, #0x08]     /* SSIENR: on; the XIP window reads flash from here */
    ldr r0, vectors
    ldr r1, vtor
    str r0, [r1]
    ldr r1, [r0, #0]
    msr msp, r1
    ldr r1, [r0, #4]
    bx r1
    .balign 4
ssi: .word 0x18000000
ctrlr0: .word 0x001F0300
spi_ctrlr0: .word 0x03000218
spi_ctrlr0_address: .word 0x180000F4
vectors: .word 0x10000100
vtor: .word 0xE000ED08

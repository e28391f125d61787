/* Runs an image on simavr's ATmega328P, for toolchain/links/simavr.py: `simavr_run IMAGE MCU HZ`. USART0 is standard input and
 * output. When the program goes round in a few bytes of code, it waits for a byte: then this waits too, for standard input. */
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_irq.h>

#define LOOK 2000    /* instructions between two looks at standard input */
#define LOOP_BYTES 16 /* code within which a program only waits */
#define WAIT_MS 50

static avr_irq_t *to_uart;
static int ready = 1, sent;

static void on_output(struct avr_irq_t *irq, uint32_t value, void *param) {
    uint8_t byte = (uint8_t)value;
    (void)irq;
    (void)param;
    sent = 1;
    if (write(1, &byte, 1) != 1) {
        exit(1);
    }
}

static void on_ready(struct avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq;
    (void)value;
    ready = (int)(intptr_t)param;
}

int main(int argc, char **argv) {
    elf_firmware_t image;
    uint32_t flags = 0;
    memset(&image, 0, sizeof image);
    if (argc != 4 || elf_read_firmware(argv[1], &image) != 0) {
        fprintf(stderr, "%s: no image for an AVR\n", argc > 1 ? argv[1] : "?");
        return 1;
    }
    avr_t *avr = avr_make_mcu_by_name(argv[2]);
    if (avr == NULL) {
        fprintf(stderr, "simavr knows no %s\n", argv[2]);
        return 1;
    }
    avr_init(avr);
    image.frequency = (uint32_t)strtoul(argv[3], NULL, 10);
    avr_load_firmware(avr, &image);
    avr->log = 1; /* errors only */
    avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
    flags &= ~(uint32_t)(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POLL_SLEEP); /* else it prints, and sleeps on the host's clock */
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    to_uart = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), on_output, NULL);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XON), on_ready, (void *)1);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XOFF), on_ready, (void *)0);
    uint8_t input[4096];
    size_t at = 0, count = 0;
    for (;;) {
        avr_flashaddr_t low = UINT32_MAX, high = 0;
        sent = 0;
        for (int i = 0; i < LOOK; i++) {
            int state = avr_run(avr);
            low = avr->pc < low ? avr->pc : low;
            high = avr->pc > high ? avr->pc : high;
            if (state == cpu_Done || state == cpu_Crashed) {
                fprintf(stderr, "the simulated processor stopped at 0x%x\n", (unsigned)avr->pc);
                return 1;
            }
            if (ready && at < count) {
                avr_raise_irq(to_uart, input[at++]);
            }
        }
        if (at == count) {
            struct pollfd in = {.fd = 0, .events = POLLIN, .revents = 0};
            int waits = high - low <= LOOP_BYTES && !sent;
            if (poll(&in, 1, waits ? WAIT_MS : 0) > 0) {
                ssize_t n = read(0, input, sizeof input);
                if (n <= 0) {
                    return 0;
                }
                at = 0;
                count = (size_t)n;
            }
        }
    }
}

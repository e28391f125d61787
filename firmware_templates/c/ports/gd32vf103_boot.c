/* The first instructions of a GD32VF103. It starts at 0, where flash is seen a second time (User Manual 1.4), while the image
 * is linked for 0x08000000: an address that the code takes relative to its own would be wrong, so it goes where it belongs. */
#include <stdint.h>

void gd32vf103_boot(void);

__attribute__((naked, section(".boot2"), used)) void gd32vf103_boot(void) {
    __asm__ volatile(".option push\n"
                     ".option norelax\n"
                     "lui t0, %hi(Reset_Handler)\n"
                     "jr %lo(Reset_Handler)(t0)\n"
                     ".option pop\n");
}

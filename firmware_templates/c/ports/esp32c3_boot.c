/* What an ESP32-C3's ROM looks for at the start of flash: twice this number, and it maps flash, for code and for data, and
 * jumps right behind them ("direct boot", silicon revision 3 and up). */
#include <stdint.h>

__attribute__((section(".boot2"), used)) static const uint32_t direct_boot[2] = {0xAEDB041Du, 0xAEDB041Du};

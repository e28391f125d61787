/* What the stand-in core of the simulation asks of C: bytes in, an inference, bytes out. */
#ifndef CORE_H
#define CORE_H

#ifdef __cplusplus
extern "C" {
#endif

void core_put(int at, char value); /* byte `at` of the inputs, one after another */
void core_run(void);
char core_get(int at); /* byte `at` of the outputs, one after another */
void core_busy(unsigned char busy); /* the clock must not stop now; the simulation's own */

#ifdef __cplusplus
}
#endif
#endif

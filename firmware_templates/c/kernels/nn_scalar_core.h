/* Whether nn_scalar.S has an inner loop for this core; read by the C and the assembly beside it. */
#ifndef NN_SCALAR_CORE_H
#define NN_SCALAR_CORE_H
#if defined(__riscv) && __riscv_xlen == 32 && defined(__riscv_mul) && !defined(__riscv_32e)
#define NN_SCALAR_CORE 1 /* RV32IM */
#elif defined(__thumb2__)
#define NN_SCALAR_CORE 2 /* Cortex-M3 and above */
#elif defined(__thumb__)
#define NN_SCALAR_CORE 3 /* Cortex-M0, M0+ */
#endif
#endif

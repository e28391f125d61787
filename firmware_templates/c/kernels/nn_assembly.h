/* How a function of assembly begins and ends: in a section of its own, which the linker drops where nobody calls it. */
#ifndef NN_ASSEMBLY_H
#define NN_ASSEMBLY_H
#ifdef __ASSEMBLER__
    .macro NN_BEGIN name
    .section .text.\name, "ax", %progbits
    .balign 4
#ifdef __thumb__
    .thumb_func
#endif
    .global \name
    .type \name, %function
\name:
    .endm

    .macro NN_END name
    .size \name, . - \name
    .endm
#endif
#endif

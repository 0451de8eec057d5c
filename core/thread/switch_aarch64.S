/*
 * switch_aarch64.S - from one stack to another, on aarch64 with the AAPCS64. See iso_thread_switch in thread.h.
 *
 * A stack that waits has, from its stack pointer up:
 *      0  x29 and where it goes on: a frame record, so that who walks those can begin here
 *     16  x19 to x28
 *     96  d8 to d15: of v8 to v15 a call preserves the lower halves
 *    160  FPCR, and 8 bytes that say nothing
 * The two stacks look alike at each instruction, so that the unwind information holds for both.
 *
 * FPCR has the modes that a call preserves, and is loaded only where it differs: that waits for all that computes. FPSR has what exceptions
 * were raised, which a call does not preserve. x18 is the platform's and no thread's; SVE's registers a call preserves only
 * where it is declared to, which this one is not. The stack protector's canary is one word of the process's, the same on both stacks.
 *
 * Return addresses in our own frames are not signed (PAC: the key is the process's). With BTI an indirect branch must find a landing pad;
 * `ret` need not, so that is how both a caller and a new stack's entry are gone to.
 */
    .text

#define FRAME 176

    .globl  iso_thread_switch
    .type   iso_thread_switch, %function
    .p2align 4
iso_thread_switch: /* (void **save [x0], void *to [x1]) */
    .cfi_startproc
    hint    34 /* bti c: the linker may put a branch by register between */
    sub     sp, sp, FRAME
    .cfi_def_cfa_offset FRAME
    stp     x29, x30, [sp]
    .cfi_offset x29, -176
    .cfi_offset x30, -168
    stp     x19, x20, [sp, 16]
    .cfi_offset x19, -160
    .cfi_offset x20, -152
    stp     x21, x22, [sp, 32]
    .cfi_offset x21, -144
    .cfi_offset x22, -136
    stp     x23, x24, [sp, 48]
    .cfi_offset x23, -128
    .cfi_offset x24, -120
    stp     x25, x26, [sp, 64]
    .cfi_offset x25, -112
    .cfi_offset x26, -104
    stp     x27, x28, [sp, 80]
    .cfi_offset x27, -96
    .cfi_offset x28, -88
    stp     d8, d9, [sp, 96]
    .cfi_offset d8, -80
    .cfi_offset d9, -72
    stp     d10, d11, [sp, 112]
    .cfi_offset d10, -64
    .cfi_offset d11, -56
    stp     d12, d13, [sp, 128]
    .cfi_offset d12, -48
    .cfi_offset d13, -40
    stp     d14, d15, [sp, 144]
    .cfi_offset d14, -32
    .cfi_offset d15, -24
    mrs     x2, fpcr
    mov     x3, sp
    str     x2, [sp, 160]
    str     x3, [x0]

    mov     sp, x1
iso_thread_goes_on: /* a debugger that is told to be here, with a saved stack pointer, shows a stack that waits */
    ldr     x4, [sp, 160]
    cmp     x2, x4
    b.ne    1f
2:  .cfi_remember_state
    ldp     x29, x30, [sp]
    .cfi_restore x29
    .cfi_restore x30
    ldp     x19, x20, [sp, 16]
    .cfi_restore x19
    .cfi_restore x20
    ldp     x21, x22, [sp, 32]
    .cfi_restore x21
    .cfi_restore x22
    ldp     x23, x24, [sp, 48]
    .cfi_restore x23
    .cfi_restore x24
    ldp     x25, x26, [sp, 64]
    .cfi_restore x25
    .cfi_restore x26
    ldp     x27, x28, [sp, 80]
    .cfi_restore x27
    .cfi_restore x28
    ldp     d8, d9, [sp, 96]
    .cfi_restore d8
    .cfi_restore d9
    ldp     d10, d11, [sp, 112]
    .cfi_restore d10
    .cfi_restore d11
    ldp     d12, d13, [sp, 128]
    .cfi_restore d12
    .cfi_restore d13
    ldp     d14, d15, [sp, 144]
    .cfi_restore d14
    .cfi_restore d15
    mov     w0, 0
    add     sp, sp, FRAME
    .cfi_def_cfa_offset 0
    ret
    .cfi_restore_state
1:  msr     fpcr, x4
    b       2b
    .cfi_endproc
    .size   iso_thread_switch, . - iso_thread_switch

/* Where a new stack goes on: x20 is the argument, x19 the function. Nobody called it: a backtrace ends here, by unwind
 * information as by frame records. */
    .globl  iso_thread_entry
    .hidden iso_thread_entry
    .type   iso_thread_entry, %function
    .p2align 4
    .cfi_startproc
    .cfi_undefined x30
    nop /* who unwinds looks for the instruction before the one that a stack goes on with */
iso_thread_entry:
    mov     x29, 0
    mov     x30, 0
    mov     x0, x20
    blr     x19
    brk     1
    .cfi_endproc
    .size   iso_thread_entry, . - iso_thread_entry

#if defined(__ARM_FEATURE_BTI_DEFAULT) && __ARM_FEATURE_BTI_DEFAULT
/* What the compiler says of its own: branches by register are as BTI wants them. Without it the linker takes that from the whole
 * library. */
    .section .note.gnu.property, "a"
    .p2align 3
    .word   4, 16, 5 /* NT_GNU_PROPERTY_TYPE_0 */
    .asciz  "GNU"
    .word   0xc0000000, 4, 1, 0 /* GNU_PROPERTY_AARCH64_FEATURE_1_AND: BTI */
#endif

    .section .note.GNU-stack, "", %progbits

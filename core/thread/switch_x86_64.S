/*
 * switch_x86_64.S - from one stack to another, on x86_64 with the System V ABI. See iso_thread_switch in thread.h.
 *
 * A stack that waits has, from its stack pointer up:
 *      0  MXCSR (4 bytes), x87 control word (2)
 *      8  the stack protector's canary of who runs on it
 *     16  r15, r14, r13, r12, rbx, rbp
 *     64  where it goes on
 * The two stacks look alike at each instruction, so that the unwind information holds for both.
 *
 * Of MXCSR and the x87 control word only the modes count, and they are loaded only where they differ: loading an MXCSR
 * that differs in no more than what exceptions were raised is ten times as slow as all the rest.
 */
    .text

    .globl  iso_thread_switch
    .type   iso_thread_switch, @function
    .p2align 4
iso_thread_switch: /* (void **save [rdi], void *to [rsi]) */
    .cfi_startproc
    pushq   %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq   %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq   %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq   %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq   %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq   %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    subq    $16, %rsp
    .cfi_adjust_cfa_offset 16
    movq    %fs:40, %rax
    stmxcsr (%rsp)
    fnstcw  4(%rsp)
    movq    %rax, 8(%rsp)
    movl    (%rsp), %r8d
    movzwl  4(%rsp), %r9d
    movq    %rsp, (%rdi)

    movq    %rsi, %rsp
iso_thread_goes_on: /* a debugger that is told to be here, with a saved stack pointer, shows a stack that waits */
    movq    8(%rsp), %rax
    movq    %rax, %fs:40
    xorl    (%rsp), %r8d
    testl   $0xffc0, %r8d
    jne     1f
    cmpw    %r9w, 4(%rsp)
    jne     1f
2:  .cfi_remember_state
    xorl    %eax, %eax
    addq    $16, %rsp
    .cfi_adjust_cfa_offset -16
    popq    %r15
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %r15
    popq    %r14
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %r14
    popq    %r13
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %r13
    popq    %r12
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %r12
    popq    %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %rbx
    popq    %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_same_value %rbp
    popq    %rcx /* not ret: the processor would expect the other stack's caller */
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    jmp     *%rcx
    .cfi_restore_state
1:  ldmxcsr (%rsp)
    fldcw   4(%rsp)
    jmp     2b
    .cfi_endproc
    .size   iso_thread_switch, . - iso_thread_switch

/* Where a new stack goes on: rbx is the argument, r12 the function. Nobody called it: a backtrace ends here. */
    .globl  iso_thread_entry
    .hidden iso_thread_entry
    .type   iso_thread_entry, @function
    .p2align 4
    .cfi_startproc
    .cfi_undefined %rip
    nop /* who unwinds looks for the instruction before the one that a stack goes on with */
iso_thread_entry:
    xorl    %ebp, %ebp
    movq    %rbx, %rdi
    call    *%r12
    ud2
    .cfi_endproc
    .size   iso_thread_entry, . - iso_thread_entry

    .section .note.GNU-stack, "", @progbits

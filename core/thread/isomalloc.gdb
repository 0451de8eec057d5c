# isomalloc.gdb - for gdb, of a process that runs or has stopped: source it, then
#   iso-backtrace THREAD
# shows the stack of a thread of libisomalloc-thread (an iso_thread_t *) that waits: that yielded, suspended, or wants to leave.
# It needs the library's symbols (not stripped). One that runs is where `bt` is.
define iso-backtrace
    set $iso_sp = $sp
    set $iso_pc = $pc
    # the third word of a thread is its stack; the second of that, where it is in use from
    set $iso_stack = ((unsigned long *) $arg0)[2]
    set $sp = ((unsigned long *) $iso_stack)[1]
    set $pc = (unsigned long) &iso_thread_goes_on
    backtrace
    set $sp = $iso_sp
    set $pc = $iso_pc
end
document iso-backtrace
iso-backtrace THREAD: the stack of a thread of libisomalloc-thread that waits.
end

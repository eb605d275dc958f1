//! The program's first instructions, its memory functions and its end: what a C library would bring.
//!
//! Part of the program only, not of the library.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

// The kernel begins here with the stack pointer at `argc` (the System V ABI for x86-64, "Initial Stack and Register State").
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);

/// `stack` points to `argc`, followed by the pointers to the arguments.
extern "C" fn begin(stack: *const u64) -> ! {
    // SAFETY: the kernel puts the count there.
    let count = unsafe { stack.read() };
    if count != 2 {
        // Somebody in a container has executed /proc/1/exe.
        crate::sys::exit(1);
    }
    // SAFETY: there are as many pointers as the count says.
    let text = unsafe { stack.wrapping_add(2).read() } as *mut u8;
    let mut number = 0_i32;
    let mut place = text;
    loop {
        // SAFETY: an argument is a terminated string, and the terminator ends the loop.
        let byte = unsafe { place.read() };
        if !byte.is_ascii_digit() {
            break;
        }
        number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
        // SAFETY: the stack is writable. Whoever reads the command line need not know the number.
        unsafe { place.write(0) };
        place = place.wrapping_add(1);
    }
    crate::sys::exit(crate::waiting::follow(number))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    crate::sys::exit(1)
}

/// memcpy(3), which the compiler calls.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// memset(3), which the compiler calls.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}

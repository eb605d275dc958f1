//! What the check before a fork finds in a process with a real V8.
//!
//! A program of its own with one thread, because that is part of what is checked.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use aworker_rt::{Runtime, V8Flags, initialize};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use turf_core::sys::memory::mark_dontfork;
use turf_seed::forkable::Forkable;

fn main() {
    // Whatever the test runner left open belongs to the expected set.
    let inherited: Vec<i32> =
        (0..1024).filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect();
    initialize(&V8Flags::default());
    let mut runtime = Runtime::new();
    runtime.warm_up().unwrap();
    runtime.settle();
    let heap = largest_private_mapping();

    let mut forkable = Forkable::check(inherited, &[]).unwrap_or_else(|refusal| panic!("{refusal}"));
    println!("test a_warm_runtime_may_be_forked ... ok");

    let file = File::open("/dev/null").unwrap();
    let refusal = forkable.check_again(&[]).unwrap_err();
    assert!(refusal.text.contains(&format!("descriptor {} is /dev/null", file.as_raw_fd())), "{refusal}");
    forkable.check_again(&[file.as_raw_fd()]).unwrap();
    drop(file);
    println!("test an_unexpected_descriptor_is_refused ... ok");

    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let refusal = forkable.check_again(&[]).unwrap_err();
    assert!(refusal.text.contains("eventpoll"), "{refusal}");
    assert!(epoll.0.as_fd().as_raw_fd() > 2);
    drop(epoll);
    forkable.check_again(&[]).unwrap();
    println!("test an_epoll_is_refused ... ok");

    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv());
    let refusal = forkable.check_again(&[]).unwrap_err();
    assert!(refusal.text.contains("2 threads"), "{refusal}");
    drop(sender);
    thread.join().unwrap().unwrap_err();
    // A thread that has been joined is counted until the kernel has cleared it away.
    while forkable.check_again(&[]).is_err_and(|refusal| refusal.text.contains("2 threads")) {
        std::thread::yield_now();
    }
    println!("test a_second_thread_is_refused ... ok");

    mark_dontfork(heap.0, heap.1 - heap.0).unwrap();
    let refusal = Forkable::check((0..1024).collect::<Vec<_>>(), &[]).unwrap_err();
    assert!(
        refusal.text.contains("MADV_DONTFORK") && refusal.text.contains(&format!("{:x}-", heap.0)),
        "{refusal}"
    );
    println!("test v8s_heap_without_the_remedy_is_refused ... ok");
}

/// V8's heap is the largest memory that the process has of its own.
fn largest_private_mapping() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.contains("rw-p 00000000 00:00 0") && !line.contains('['))
        .filter_map(|line| line.split_once(' ')?.0.split_once('-'))
        .map(|(start, end)| (number(start), number(end)))
        .max_by_key(|(start, end)| end - start)
        .unwrap()
}

fn number(hexadecimal: &str) -> usize {
    usize::from_str_radix(hexadecimal, 16).unwrap()
}

//! What a busy program keeps of what it no longer needs.

mod script_support;
mod temporary;

use script_support::Directory;

/// Each timer takes the place of one before it, 500 at a time: what all of them held together is twice what V8 lets its heap grow
/// to before it marks all of it.
const TIMERS: &str = "\
let left = 400_000;
function next() {
  if (left-- <= 0) return;
  const held = new Array(20).fill(left);
  setTimeout(() => { if (held[0] >= -1) next(); }, 1);
}
for (let i = 0; i < 500; i++) next();
";

#[test]
fn timers_that_are_over_leave_nothing_in_the_old_generation() {
    let directory = Directory::new("timers", &[("a.js", TIMERS)]);
    let run = directory.run(&["run", "--v8-flag=--trace-gc", "a.js"]);
    assert_eq!(run.status, Some(0), "{run:?}");
    assert!(run.stdout.contains("Scavenge"), "{run:?}");
    assert!(!run.stdout.contains("Mark-Compact"), "the old generation has grown: {run:?}");
}

/// Native blocks, each with a small one behind it that stays, so that none of them is the end of the heap. The loop never rests.
const BLOCKS: &str = "\
const anonymous = async () => Number(/RssAnon:\\s+(\\d+)/.exec(await Aworker.files.text('/proc/self/status'))[1]);
const kept = [];
function fill() {
  const blocks = [];
  for (let i = 0; i < 24; i++) {
    blocks.push(new Uint8Array(400_000).fill(1));
    kept.push(new Uint8Array(100).fill(1));
  }
  return blocks.length;
}
fill();
const full = await anonymous();
let least = full;
for (let turn = 0; turn < 20_000 && least > full - 5000; turn++) {
  await new Promise((done) => setTimeout(done, 0));
  for (let i = 0; i < 100; i++) kept.last = { turn, i };
  if (turn % 100 === 99) least = Math.min(least, await anonymous());
}
console.log(least <= full - 5000 ? 'went back' : `${full} kB, then ${least} kB`);
";

#[test]
fn native_memory_that_is_free_goes_back_while_work_goes_on() {
    let directory = Directory::new("blocks", &[("a.js", BLOCKS)]);
    directory.run(&["run", "a.js"]).prints("went back\n");
}

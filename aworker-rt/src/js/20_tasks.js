//! Tasks for the event loop: each runs by itself, with a microtask checkpoint after it.
//! https://html.spec.whatwg.org/#queue-a-task

/** What the event loop was asked to run, in order; those before `head` have run. */
let queue = [];
let head = 0;

/** Runs `steps` with `argument` as a task of its own. */
function queueTask(steps, argument) {
  const ofRequest = ops.task_queue();
  primordials.ArrayPrototypePush(queue, { steps, argument, ofRequest });
}

/** () : called by the event loop once for each queued task. */
internals.callbacks.task = () => {
  const { steps, argument, ofRequest } = queue[head];
  queue[head++] = undefined;
  if (head === queue.length) {
    queue = [];
    head = 0;
  } else if (head >= 1024 && head * 2 >= queue.length) {
    primordials.ArrayPrototypeSplice(queue, 0, head);
    head = 0;
  }
  if (ofRequest) ops.enter_request();
  steps(argument);
};

internals.queueTask = queueTask;

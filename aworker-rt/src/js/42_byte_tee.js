//! ReadableByteStreamTee: two branches that hand their BYOB views to the source.
//! https://streams.spec.whatwg.org/#abstract-opdef-readablebytestreamtee

const { PromisePrototypeThen, PromiseWithResolvers } = primordials;
const { streams } = internals;
const { uponPromise } = streams;
const { acquireDefaultReader, readableStreamCancel, readerRead, readerRelease } = streams.readable;
const { createByteRecord, acquireBYOBReader, readIntoView, cloneChunk } = streams.byte;

/** A tee under way: the reader of the source and two branches, `{ stream, canceled, reason, readAgain }`. */
class ByteTee {
  stream;
  reader;
  reading = false;
  branches = [];
  cancelled = PromiseWithResolvers();

  constructor(stream) {
    this.stream = stream;
    this.branches[0] = this.createBranch();
    this.branches[1] = this.createBranch();
    this.setReader(acquireDefaultReader(stream));
  }

  createBranch() {
    const branch = { stream: undefined, canceled: false, reason: undefined, readAgain: false };
    branch.stream = createByteRecord(() => this.pull(branch), (reason) => this.cancel(branch, reason));
    branch.stream.controller.answersItself = true;
    return branch;
  }

  otherThan(branch) {
    return branch === this.branches[0] ? this.branches[1] : this.branches[0];
  }

  bothCanceled() {
    return this.branches[0].canceled && this.branches[1].canceled;
  }

  errorBoth(error) {
    this.branches[0].stream.controller.error(error);
    this.branches[1].stream.controller.error(error);
  }

  /** Takes a reader, and forwards the error of the source as long as it is the one in use. */
  setReader(reader) {
    this.reader = reader;
    PromisePrototypeThen(reader.closed.get(), undefined, (error) => {
      if (this.reader !== reader) return;
      this.errorBoth(error);
      if (!this.bothCanceled()) this.cancelled.resolve();
    });
  }

  pull(branch) {
    if (this.reading) {
      branch.readAgain = true;
      return;
    }
    this.reading = true;
    const { controller } = branch.stream;
    if (controller.pendingPullIntos.length === 0) this.pullWithDefaultReader();
    else this.pullWithBYOBReader(controller.pendingView(), branch);
  }

  /** A read is done: begins the one that was asked for meanwhile. */
  finishRead() {
    this.reading = false;
    if (this.branches[0].readAgain) this.pull(this.branches[0]);
    else if (this.branches[1].readAgain) this.pull(this.branches[1]);
  }

  forgetReadAgain() {
    this.branches[0].readAgain = false;
    this.branches[1].readAgain = false;
  }

  /** The second branch's copy of a chunk; undefined once both branches are errored because there is none. */
  copyOf(chunk) {
    try {
      return cloneChunk(chunk);
    } catch (error) {
      this.errorBoth(error);
      PromisePrototypeThen(readableStreamCancel(this.stream, error), this.cancelled.resolve, this.cancelled.reject);
      return undefined;
    }
  }

  pullWithDefaultReader() {
    if (this.reader.isByob) {
      readerRelease(this.reader);
      this.setReader(acquireDefaultReader(this.stream));
    }
    readerRead(this.reader, {
      // In a microtask, as errors of the source must reach both branches first.
      chunk: (chunk) => uponPromise(undefined, () => this.deliver(chunk)),
      close: () => this.closeDefault(),
      error: () => {
        this.reading = false;
      },
    });
  }

  deliver(chunk) {
    this.forgetReadAgain();
    const { 0: first, 1: second } = this.branches;
    let copy = chunk;
    if (!first.canceled && !second.canceled) {
      copy = this.copyOf(chunk);
      if (copy === undefined) return;
    }
    if (!first.canceled) first.stream.controller.enqueue(chunk);
    if (!second.canceled) second.stream.controller.enqueue(copy);
    this.finishRead();
  }

  closeDefault() {
    this.reading = false;
    for (let i = 0; i < 2; i++) if (!this.branches[i].canceled) this.branches[i].stream.controller.close();
    for (let i = 0; i < 2; i++) {
      const { controller } = this.branches[i].stream;
      if (controller.pendingPullIntos.length > 0) controller.respond(0);
    }
    if (!this.bothCanceled()) this.cancelled.resolve();
  }

  pullWithBYOBReader(view, branch) {
    if (!this.reader.isByob) {
      readerRelease(this.reader);
      this.setReader(acquireBYOBReader(this.stream));
    }
    readIntoView(this.reader, view, 1, {
      chunk: (chunk) => uponPromise(undefined, () => this.deliverInto(branch, chunk)),
      close: (chunk) => this.closeInto(branch, chunk),
      error: () => {
        this.reading = false;
      },
    });
  }

  deliverInto(branch, chunk) {
    this.forgetReadAgain();
    const other = this.otherThan(branch);
    if (!other.canceled) {
      const copy = this.copyOf(chunk);
      if (copy === undefined) return;
      if (!branch.canceled) branch.stream.controller.respondWithNewView(chunk);
      other.stream.controller.enqueue(copy);
    } else if (!branch.canceled) {
      branch.stream.controller.respondWithNewView(chunk);
    }
    this.finishRead();
  }

  closeInto(branch, chunk) {
    this.reading = false;
    const other = this.otherThan(branch);
    if (!branch.canceled) branch.stream.controller.close();
    if (!other.canceled) other.stream.controller.close();
    if (chunk !== undefined) {
      if (!branch.canceled) branch.stream.controller.respondWithNewView(chunk);
      if (!other.canceled && other.stream.controller.pendingPullIntos.length > 0) other.stream.controller.respond(0);
    }
    if (!this.bothCanceled()) this.cancelled.resolve();
  }

  cancel(branch, reason) {
    branch.canceled = true;
    branch.reason = reason;
    if (this.otherThan(branch).canceled) {
      const reasons = [this.branches[0].reason, this.branches[1].reason];
      PromisePrototypeThen(readableStreamCancel(this.stream, reasons), this.cancelled.resolve, this.cancelled.reject);
    }
    return this.cancelled.promise;
  }
}

/** ReadableByteStreamTee, on records. */
streams.byte.tee = (stream) => {
  const { branches } = new ByteTee(stream);
  return { first: branches[0].stream, second: branches[1].stream };
};

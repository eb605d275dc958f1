//! Readable byte streams: the abstract operations of ReadableByteStreamController and of BYOB
//! readers. https://streams.spec.whatwg.org/#rbs-controller-abstract-ops

const {
  ArrayBuffer,
  ArrayBufferPrototypeGetByteLength,
  ArrayBufferPrototypeSlice,
  ArrayBufferPrototypeTransfer,
  ArrayPrototypePush,
  ArrayPrototypeShift,
  MathMin,
  RangeError,
  TypeError,
  TypedArrayPrototypeSet,
  Uint8Array,
} = primordials;
const { streams } = internals;
const { uponPromise } = streams;
const {
  ReadableStreamRecord,
  ReaderRecord,
  readableStreamClose,
  readableStreamError,
  numReadRequests,
  startController,
} = streams.readable;

/** TransferArrayBuffer: the argument is detached. */
function transferBuffer(buffer) {
  return ArrayBufferPrototypeTransfer(buffer);
}

/** CopyDataBlockBytes, by views. */
function copyBytes(target, targetOffset, source, sourceOffset, count) {
  TypedArrayPrototypeSet(new Uint8Array(target, targetOffset, count), new Uint8Array(source, sourceOffset, count));
}

/** CloneAsUint8Array for views; other chunks are structured clones. */
function cloneChunk(chunk) {
  if (!primordials.ArrayBufferIsView(chunk)) return internals.structuredClone(chunk);
  const { buffer, byteOffset, byteLength } = streams.viewParts(chunk);
  return new Uint8Array(ArrayBufferPrototypeSlice(buffer, byteOffset, byteOffset + byteLength));
}

/** A pull-into descriptor. */
class PullInto {
  buffer;
  bufferByteLength;
  byteOffset;
  byteLength;
  bytesFilled = 0;
  minimumFill;
  elementSize;
  viewConstructor;
  readerType; // 'default', 'byob' or 'none'

  constructor(buffer, byteOffset, byteLength, minimumFill, elementSize, viewConstructor, readerType) {
    this.buffer = buffer;
    this.bufferByteLength = ArrayBufferPrototypeGetByteLength(buffer);
    this.byteOffset = byteOffset;
    this.byteLength = byteLength;
    this.minimumFill = minimumFill;
    this.elementSize = elementSize;
    this.viewConstructor = viewConstructor;
    this.readerType = readerType;
  }

  /** ReadableByteStreamControllerConvertPullIntoDescriptor */
  toView() {
    const length = this.bytesFilled / this.elementSize;
    return new this.viewConstructor(transferBuffer(this.buffer), this.byteOffset, length);
  }
}

/** The slots of a ReadableByteStreamController, and its internal methods. */
class ByteControllerRecord {
  isByte = true;
  /** Whether the source, though a built-in's, answers what waits when it closes. */
  answersItself = false;
  stream;
  /** Entries `{ buffer, byteOffset, byteLength }`. */
  queue = [];
  queueTotalSize = 0;
  started = false;
  closeRequested = false;
  pulling = false;
  pullAgain = false;
  highWaterMark;
  autoAllocateChunkSize;
  pullAlgorithm;
  cancelAlgorithm;
  pendingPullIntos = [];
  byobRequest = null;
  shell = undefined;

  constructor(stream, pullAlgorithm, cancelAlgorithm, highWaterMark, autoAllocateChunkSize) {
    this.stream = stream;
    this.pullAlgorithm = pullAlgorithm;
    this.cancelAlgorithm = cancelAlgorithm;
    this.highWaterMark = highWaterMark;
    this.autoAllocateChunkSize = autoAllocateChunkSize;
    stream.controller = this;
  }

  resetQueue() {
    this.queue = [];
    this.queueTotalSize = 0;
  }

  /** [[CancelSteps]] */
  cancelSteps(reason) {
    this.clearPendingPullIntos();
    this.resetQueue();
    const { cancelAlgorithm } = this;
    this.clearAlgorithms();
    return cancelAlgorithm?.(reason);
  }

  /** [[PullSteps]] */
  pullSteps(request) {
    const { stream } = this;
    if (this.queueTotalSize > 0) {
      this.fillReadRequestFromQueue(request);
      return;
    }
    const size = this.autoAllocateChunkSize;
    if (size !== undefined) {
      let buffer;
      try {
        buffer = new ArrayBuffer(size);
      } catch (error) {
        request.error(error);
        return;
      }
      ArrayPrototypePush(this.pendingPullIntos, new PullInto(buffer, 0, size, 1, 1, Uint8Array, 'default'));
    }
    stream.reader.requests.push(request);
    this.callPullIfNeeded();
  }

  /** [[ReleaseSteps]] */
  releaseSteps() {
    if (this.pendingPullIntos.length === 0) return;
    const first = this.pendingPullIntos[0];
    first.readerType = 'none';
    this.pendingPullIntos = [first];
  }

  clearAlgorithms() {
    this.pullAlgorithm = undefined;
    this.cancelAlgorithm = undefined;
  }

  clearPendingPullIntos() {
    this.invalidateByobRequest();
    this.pendingPullIntos = [];
  }

  invalidateByobRequest() {
    if (this.byobRequest === null) return;
    this.byobRequest.invalidate();
    this.byobRequest = null;
  }

  desiredSize() {
    const { state } = this.stream;
    if (state === 'errored') return null;
    return state === 'closed' ? 0 : this.highWaterMark - this.queueTotalSize;
  }

  canCloseOrEnqueue() {
    return !this.closeRequested && this.stream.state === 'readable';
  }

  shouldCallPull() {
    const { stream } = this;
    if (!this.canCloseOrEnqueue() || !this.started) return false;
    if (numReadRequests(stream) > 0 || this.numReadIntoRequests() > 0) return true;
    return this.desiredSize() > 0;
  }

  numReadIntoRequests() {
    const { reader } = this.stream;
    return reader !== undefined && reader.isByob ? reader.requests.length : 0;
  }

  callPullIfNeeded() {
    if (this.pullAlgorithm === undefined || !this.shouldCallPull()) return;
    if (this.pulling) {
      this.pullAgain = true;
      return;
    }
    this.pulling = true;
    uponPromise(this.pullAlgorithm(this), () => {
      this.pulling = false;
      if (!this.pullAgain) return;
      this.pullAgain = false;
      this.callPullIfNeeded();
    }, (error) => this.error(error));
  }

  /** ReadableByteStreamControllerClose */
  close() {
    const { stream } = this;
    if (this.closeRequested || stream.state !== 'readable') return;
    if (this.queueTotalSize > 0) {
      this.closeRequested = true;
      return;
    }
    if (this.pendingPullIntos.length > 0) {
      const first = this.pendingPullIntos[0];
      if (first.bytesFilled % first.elementSize !== 0) {
        const error = new TypeError('The stream was closed in the middle of an element');
        this.error(error);
        throw error;
      }
    }
    this.clearAlgorithms();
    readableStreamClose(stream);
    // A user's source answers its BYOB request itself; for a built-in's, closing does.
    if (this.shell === undefined && !this.answersItself && this.pendingPullIntos.length > 0) this.respond(0);
  }

  /** ReadableByteStreamControllerError */
  error(error) {
    const { stream } = this;
    if (stream.state !== 'readable') return;
    this.clearPendingPullIntos();
    this.resetQueue();
    this.clearAlgorithms();
    readableStreamError(stream, error);
  }

  /** ReadableByteStreamControllerEnqueue. The chunk's buffer is detached. */
  enqueue(chunk) {
    const { stream } = this;
    if (!this.canCloseOrEnqueue()) return;
    const { buffer, byteOffset, byteLength } = streams.viewParts(chunk);
    if (streams.isDetached(buffer)) throw new TypeError("The chunk's buffer is detached");
    const transferred = transferBuffer(buffer);
    if (this.pendingPullIntos.length > 0) {
      const first = this.pendingPullIntos[0];
      if (streams.isDetached(first.buffer)) throw new TypeError("The BYOB request's buffer is detached");
      this.invalidateByobRequest();
      first.buffer = transferBuffer(first.buffer);
      if (first.readerType === 'none') this.enqueueDetachedPullInto(first);
    }
    const reader = stream.reader;
    if (reader !== undefined && !reader.isByob) {
      this.processReadRequestsUsingQueue();
      if (reader.requests.length === 0) {
        this.enqueueChunk(transferred, byteOffset, byteLength);
      } else {
        if (this.pendingPullIntos.length > 0) ArrayPrototypeShift(this.pendingPullIntos);
        reader.requests.shift().chunk(new Uint8Array(transferred, byteOffset, byteLength));
      }
    } else if (reader !== undefined) {
      this.enqueueChunk(transferred, byteOffset, byteLength);
      this.commitAll(this.processPullIntosUsingQueue());
    } else {
      this.enqueueChunk(transferred, byteOffset, byteLength);
    }
    this.callPullIfNeeded();
  }

  /** ReadableByteStreamControllerEnqueueChunkToQueue */
  enqueueChunk(buffer, byteOffset, byteLength) {
    ArrayPrototypePush(this.queue, { buffer, byteOffset, byteLength });
    this.queueTotalSize += byteLength;
  }

  enqueueClonedChunk(buffer, byteOffset, byteLength) {
    let clone;
    try {
      clone = ArrayBufferPrototypeSlice(buffer, byteOffset, byteOffset + byteLength);
    } catch (error) {
      this.error(error);
      throw error;
    }
    this.enqueueChunk(clone, 0, byteLength);
  }

  enqueueDetachedPullInto(pullInto) {
    if (pullInto.bytesFilled > 0) this.enqueueClonedChunk(pullInto.buffer, pullInto.byteOffset, pullInto.bytesFilled);
    ArrayPrototypeShift(this.pendingPullIntos);
  }

  /** ReadableByteStreamControllerFillReadRequestFromQueue */
  fillReadRequestFromQueue(request) {
    const entry = ArrayPrototypeShift(this.queue);
    this.queueTotalSize -= entry.byteLength;
    this.handleQueueDrain();
    request.chunk(new Uint8Array(entry.buffer, entry.byteOffset, entry.byteLength));
  }

  handleQueueDrain() {
    if (this.queueTotalSize === 0 && this.closeRequested) {
      this.clearAlgorithms();
      readableStreamClose(this.stream);
    } else {
      this.callPullIfNeeded();
    }
  }

  processReadRequestsUsingQueue() {
    const { requests } = this.stream.reader;
    while (requests.length > 0 && this.queueTotalSize > 0) this.fillReadRequestFromQueue(requests.shift());
  }

  /** ReadableByteStreamControllerFillPullIntoDescriptorFromQueue; true when it is ready. */
  fillPullIntoFromQueue(pullInto) {
    const maxCopy = MathMin(this.queueTotalSize, pullInto.byteLength - pullInto.bytesFilled);
    const maxFilled = pullInto.bytesFilled + maxCopy;
    let remaining = maxCopy;
    let ready = false;
    const maxAligned = maxFilled - (maxFilled % pullInto.elementSize);
    if (maxAligned >= pullInto.minimumFill) {
      remaining = maxAligned - pullInto.bytesFilled;
      ready = true;
    }
    while (remaining > 0) {
      const head = this.queue[0];
      const count = MathMin(remaining, head.byteLength);
      copyBytes(pullInto.buffer, pullInto.byteOffset + pullInto.bytesFilled, head.buffer, head.byteOffset, count);
      if (head.byteLength === count) {
        ArrayPrototypeShift(this.queue);
      } else {
        head.byteOffset += count;
        head.byteLength -= count;
      }
      this.queueTotalSize -= count;
      pullInto.bytesFilled += count;
      remaining -= count;
    }
    return ready;
  }

  /** ReadableByteStreamControllerProcessPullIntoDescriptorsUsingQueue; those that are filled. */
  processPullIntosUsingQueue() {
    const filled = [];
    while (this.pendingPullIntos.length > 0 && this.queueTotalSize > 0) {
      const pullInto = this.pendingPullIntos[0];
      if (!this.fillPullIntoFromQueue(pullInto)) break;
      ArrayPrototypeShift(this.pendingPullIntos);
      ArrayPrototypePush(filled, pullInto);
    }
    return filled;
  }

  /** ReadableByteStreamControllerCommitPullIntoDescriptor */
  commit(pullInto) {
    const { stream } = this;
    const done = stream.state === 'closed';
    const view = pullInto.toView();
    const request = stream.reader.requests.shift();
    if (pullInto.readerType === 'default') done ? request.close() : request.chunk(view);
    else if (done) request.close(view);
    else request.chunk(view);
  }

  commitAll(filled) {
    for (let i = 0; i < filled.length; i++) this.commit(filled[i]);
  }

  /** ReadableByteStreamControllerPullInto */
  pullInto(view, min, request) {
    const { stream } = this;
    const { buffer, byteOffset, byteLength, elementSize, constructor } = streams.viewParts(view);
    let transferred;
    try {
      transferred = transferBuffer(buffer);
    } catch (error) {
      request.error(error);
      return;
    }
    const pullInto = new PullInto(transferred, byteOffset, byteLength, min * elementSize, elementSize, constructor, 'byob');
    if (this.pendingPullIntos.length > 0) {
      ArrayPrototypePush(this.pendingPullIntos, pullInto);
      stream.reader.requests.push(request);
      return;
    }
    if (stream.state === 'closed') {
      request.close(new constructor(pullInto.buffer, pullInto.byteOffset, 0));
      return;
    }
    if (this.queueTotalSize > 0) {
      if (this.fillPullIntoFromQueue(pullInto)) {
        const filled = pullInto.toView();
        this.handleQueueDrain();
        request.chunk(filled);
        return;
      }
      if (this.closeRequested) {
        const error = new TypeError('The stream ended in the middle of an element');
        this.error(error);
        request.error(error);
        return;
      }
    }
    ArrayPrototypePush(this.pendingPullIntos, pullInto);
    stream.reader.requests.push(request);
    this.callPullIfNeeded();
  }

  /** ReadableByteStreamControllerRespond */
  respond(bytesWritten) {
    const first = this.pendingPullIntos[0];
    if (this.stream.state === 'closed') {
      if (bytesWritten !== 0) throw new TypeError('No bytes can be written to a closed stream');
    } else {
      if (bytesWritten === 0) throw new TypeError('A respond() of 0 bytes is only for a closed stream');
      if (first.bytesFilled + bytesWritten > first.byteLength) throw new RangeError('More bytes than the request has room for');
    }
    first.buffer = transferBuffer(first.buffer);
    this.respondInternal(bytesWritten);
  }

  /** ReadableByteStreamControllerRespondWithNewView */
  respondWithNewView(view) {
    const first = this.pendingPullIntos[0];
    const { buffer, byteOffset, byteLength } = streams.viewParts(view);
    if (this.stream.state === 'closed') {
      if (byteLength !== 0) throw new TypeError('The view must be empty: the stream is closed');
    } else if (byteLength === 0) {
      throw new TypeError('The view must not be empty');
    }
    if (first.byteOffset + first.bytesFilled !== byteOffset) throw new RangeError("The view begins elsewhere than the request's");
    if (first.bufferByteLength !== ArrayBufferPrototypeGetByteLength(buffer)) throw new RangeError("The buffer's length differs from the request's");
    if (first.bytesFilled + byteLength > first.byteLength) throw new RangeError('More bytes than the request has room for');
    first.buffer = transferBuffer(buffer);
    this.respondInternal(byteLength);
  }

  respondInternal(bytesWritten) {
    const first = this.pendingPullIntos[0];
    this.invalidateByobRequest();
    if (this.stream.state === 'closed') this.respondInClosedState(first);
    else this.respondInReadableState(bytesWritten, first);
    this.callPullIfNeeded();
  }

  respondInClosedState(first) {
    if (first.readerType === 'none') ArrayPrototypeShift(this.pendingPullIntos);
    const filled = [];
    while (filled.length < this.numReadIntoRequests()) {
      ArrayPrototypePush(filled, ArrayPrototypeShift(this.pendingPullIntos));
    }
    this.commitAll(filled);
  }

  respondInReadableState(bytesWritten, pullInto) {
    pullInto.bytesFilled += bytesWritten;
    if (pullInto.readerType === 'none') {
      this.enqueueDetachedPullInto(pullInto);
      this.commitAll(this.processPullIntosUsingQueue());
      return;
    }
    if (pullInto.bytesFilled < pullInto.minimumFill) return;
    ArrayPrototypeShift(this.pendingPullIntos);
    const remainder = pullInto.bytesFilled % pullInto.elementSize;
    if (remainder > 0) {
      const end = pullInto.byteOffset + pullInto.bytesFilled;
      this.enqueueClonedChunk(pullInto.buffer, end - remainder, remainder);
    }
    pullInto.bytesFilled -= remainder;
    const filled = this.processPullIntosUsingQueue();
    this.commit(pullInto);
    this.commitAll(filled);
  }

  /** The unfilled part of the first pending descriptor, for `byobRequest`. */
  pendingView() {
    const first = this.pendingPullIntos[0];
    return new Uint8Array(first.buffer, first.byteOffset + first.bytesFilled, first.byteLength - first.bytesFilled);
  }
}

/** CreateReadableByteStream; returns the record. */
function createByteRecord(pullAlgorithm, cancelAlgorithm, highWaterMark = 0, startResult = undefined) {
  const stream = new ReadableStreamRecord();
  startController(new ByteControllerRecord(stream, pullAlgorithm, cancelAlgorithm, highWaterMark, undefined), startResult);
  return stream;
}

/** AcquireReadableStreamBYOBReader, for records. */
function acquireBYOBReader(stream) {
  if (stream.reader !== undefined) throw new TypeError('The stream is locked to a reader');
  if (!stream.controller.isByte) throw new TypeError('The stream is not a byte stream: it has no BYOB reader');
  return new ReaderRecord(stream, true);
}

/** ReadableStreamBYOBReaderRead. */
function readIntoView(reader, view, min, request) {
  const { stream } = reader;
  stream.disturbed = true;
  if (stream.state === 'errored') request.error(stream.storedError);
  else stream.controller.pullInto(view, min, request);
}

streams.byte = { ByteControllerRecord, createByteRecord, acquireBYOBReader, readIntoView, cloneChunk };

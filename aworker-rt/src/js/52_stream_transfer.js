//! Transfer of streams: a transferred stream goes on at the other end of a message channel.
//! https://streams.spec.whatwg.org/#transferrable-streams

const { PromiseReject, PromiseWithResolvers, setPromiseHandled } = primordials;
const { isObject } = internals.webidl;
const { addTransferable, dataCloneError } = internals.cloning;
const { entangledPair, listen, post, disentangle } = internals.messaging;
const { streams } = internals;
const { createReadableRecord } = streams.readable;
const { createWritableRecord } = streams.writable;

/** PackAndPostMessage. */
function send(end, type, value) {
  post(end, { __proto__: null, type, value });
}

/** PackAndPostMessageHandlingError: what could not be cloned is told in its place, and returned. */
function trySend(end, type, value) {
  try {
    send(end, type, value);
    return undefined;
  } catch (error) {
    sendError(end, error);
    return { error };
  }
}

/** CrossRealmTransformSendError. */
function sendError(end, error) {
  try {
    send(end, 'error', error);
  } catch {
    // Not even the error can be cloned: nobody hears of it.
  }
}

function brokenChannel() {
  return new internals.DOMException('A message of the stream could not be read', 'DataCloneError');
}

/** SetUpCrossRealmTransformReadable; returns the stream's record. */
function crossReadable(end) {
  const record = createReadableRecord(
    () => {
      send(end, 'pull', undefined);
    },
    (reason) => {
      const failed = trySend(end, 'error', reason);
      disentangle(end);
      return failed === undefined ? undefined : PromiseReject(failed.error);
    },
    0,
  );
  listen(end, {
    message(data) {
      if (!isObject(data)) return;
      const { type, value } = data;
      if (type === 'chunk') {
        record.controller.enqueue(value);
      } else if (type === 'close') {
        record.controller.close();
        disentangle(end);
      } else if (type === 'error') {
        record.controller.error(value);
        disentangle(end);
      }
    },
    failed() {
      const error = brokenChannel();
      sendError(end, error);
      record.controller.error(error);
      disentangle(end);
    },
  });
  return record;
}

/** SetUpCrossRealmTransformWritable; returns the stream's record. */
function crossWritable(end) {
  /** Resolved when the other side asks for more; undefined while it has. */
  let backpressure = PromiseWithResolvers();
  const record = createWritableRecord(
    (chunk) => {
      const write = () => {
        backpressure = PromiseWithResolvers();
        const failed = trySend(end, 'chunk', chunk);
        if (failed === undefined) return undefined;
        disentangle(end);
        throw failed.error;
      };
      if (backpressure !== undefined) return streams.chainPromise(backpressure.promise, write);
      return streams.promiseCall(write, undefined);
    },
    () => {
      send(end, 'close', undefined);
      disentangle(end);
    },
    (reason) => {
      const failed = trySend(end, 'error', reason);
      disentangle(end);
      return failed === undefined ? undefined : PromiseReject(failed.error);
    },
  );
  const resume = () => {
    backpressure?.resolve();
    backpressure = undefined;
  };
  listen(end, {
    message(data) {
      if (!isObject(data)) return;
      if (data.type === 'error') record.controller.errorIfNeeded(data.value);
      if (data.type === 'pull' || data.type === 'error') resume();
    },
    failed() {
      const error = brokenChannel();
      sendError(end, error);
      record.controller.errorIfNeeded(error);
      disentangle(end);
    },
  });
  return record;
}

const noOptions = { preventAbort: false, preventCancel: false, preventClose: false, signal: undefined };

function checkReadable(record) {
  if (record.reader !== undefined) throw dataCloneError('A ReadableStream of the transfer list is locked');
}

function checkWritable(record) {
  if (record.writer !== undefined) throw dataCloneError('A WritableStream of the transfer list is locked');
}

/** The end that stands for a readable stream, whose chunks go there from here on. */
function sendReadable(record) {
  checkReadable(record);
  const { first, second } = entangledPair();
  setPromiseHandled(streams.readableStreamPipeTo(record, crossWritable(first), noOptions));
  return second;
}

/** The end that stands for a writable stream, which gets what is written there. */
function sendWritable(record) {
  checkWritable(record);
  const { first, second } = entangledPair();
  setPromiseHandled(streams.readableStreamPipeTo(crossReadable(first), record, noOptions));
  return second;
}

addTransferable({
  is: streams.isReadableStream,
  send: (stream) => sendReadable(streams.readableRecordOf(stream)),
  receive: (end) => streams.readableShellOf(crossReadable(end)),
});
addTransferable({
  is: streams.isWritableStream,
  send: (stream) => sendWritable(streams.writableRecordOf(stream)),
  receive: (end) => streams.writableShellOf(crossWritable(end)),
});
addTransferable({
  is: streams.isTransformStream,
  send: (stream) => {
    const { readable, writable } = streams.transformRecordOf(stream);
    checkReadable(readable);
    checkWritable(writable);
    return { readable: sendReadable(readable), writable: sendWritable(writable) };
  },
  receive: ({ readable, writable }) => streams.transformShellOf(crossReadable(readable), crossWritable(writable)),
});

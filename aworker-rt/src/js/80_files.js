//! Aworker.files: files and directories inside the sandbox, for reading. Ours, of no standard; bytes, streams,
//! Blobs and DOMExceptions are the standards'. Natives answer at once what is in the page cache, and give a
//! promise of the rest (`src/files`).

const {
  FinalizationRegistry,
  FinalizationRegistryPrototypeRegister,
  FinalizationRegistryPrototypeUnregister,
  MathMin,
  Number,
  NumberIsSafeInteger,
  ObjectDefineProperty,
  ObjectFreeze,
  StringPrototypeIncludes,
  StringPrototypeStartsWith,
  TypeError,
  TypedArrayPrototypeGetByteLength,
  decodeURIComponent,
} = primordials;
const { converters, isObject } = internals.webidl;
const { DOMException } = internals;
const { URL } = internals.url;
const { Blob } = internals.blob;
const { streams } = internals;

const urlOf = primordials.uncurryThis(primordials.ReflectGetOwnPropertyDescriptor(URL.prototype, 'href').get);
const pathnameOf = primordials.uncurryThis(primordials.ReflectGetOwnPropertyDescriptor(URL.prototype, 'pathname').get);
const hostOf = primordials.uncurryThis(primordials.ReflectGetOwnPropertyDescriptor(URL.prototype, 'host').get);

/** Bytes of one chunk of a stream. */
const CHUNK_BYTES = 65536;

/** What the File System standard calls the errors of the system. */
const NAMES = {
  __proto__: null,
  ENOENT: 'NotFoundError',
  ENOTDIR: 'NotFoundError',
  EACCES: 'NotAllowedError',
  EPERM: 'NotAllowedError',
  ELOOP: 'NotAllowedError',
  EISDIR: 'TypeMismatchError',
  EFBIG: 'QuotaExceededError',
  EMFILE: 'QuotaExceededError',
  ENFILE: 'QuotaExceededError',
  EINVAL: 'SyntaxError',
};

function converted(error) {
  if (typeof error?.code !== 'string') return error;
  return new DOMException(error.message, NAMES[error.code] ?? 'OperationError');
}

/** A path: text, or a file: URL. */
function toPath(value, prefix) {
  let path = converters.USVString(value, prefix, 'Argument 1');
  if (StringPrototypeStartsWith(path, 'file:')) {
    const url = new URL(path);
    if (hostOf(url) !== '') throw new TypeError(`${prefix}: ${urlOf(url)} names a host`);
    path = decodeURIComponent(pathnameOf(url));
  }
  if (path === '' || StringPrototypeIncludes(path, '\0')) {
    throw new TypeError(`${prefix}: a path must not be empty or contain a zero byte`);
  }
  return path;
}

/** Members of an options object, undefined if there is none. */
function option(options, name) {
  if (options === undefined || options === null) return undefined;
  if (!isObject(options)) throw new TypeError("Aworker.files: the options must be an object");
  return options[name];
}

async function read(path) {
  try {
    return await ops.file_bytes(path);
  } catch (error) {
    throw converted(error);
  }
}

function toOffset(value, name) {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (!NumberIsSafeInteger(number) || number < 0) {
    throw new TypeError(`Failed to execute 'stream' on 'Aworker.files': ${name} must be a whole number of bytes`);
  }
  return number;
}

/** Closes files of streams that nobody has read to their end. Made on first use: snapshots have none. */
let abandoned;

/** What a stream reads from. */
class Source {
  #path;
  #offset;
  #end;
  #handle = undefined;

  constructor(path, start, end) {
    this.#path = path;
    this.#offset = start;
    this.#end = end;
  }

  async #open() {
    const { 0: handle } = await ops.file_open(this.#path);
    this.#handle = handle;
    abandoned ??= new FinalizationRegistry((abandonedHandle) => ops.file_close(abandonedHandle));
    FinalizationRegistryPrototypeRegister(abandoned, this, handle, this);
  }

  close() {
    if (this.#handle === undefined) return;
    ops.file_close(this.#handle);
    FinalizationRegistryPrototypeUnregister(abandoned, this);
    this.#handle = undefined;
  }

  /** The next chunk, or undefined at the end. */
  async next() {
    try {
      if (this.#handle === undefined) await this.#open();
      const wanted = MathMin(CHUNK_BYTES, this.#end - this.#offset);
      if (wanted > 0) {
        const chunk = await ops.file_read(this.#handle, this.#path, this.#offset, wanted);
        const length = TypedArrayPrototypeGetByteLength(chunk);
        this.#offset += length;
        if (length > 0) return chunk;
      }
    } catch (error) {
      this.close();
      throw converted(error);
    }
    this.close();
    return undefined;
  }
}

const files = {
  async bytes(path) {
    return read(toPath(path, "Failed to execute 'bytes' on 'Aworker.files'"));
  },
  async text(path) {
    const bytes = await read(toPath(path, "Failed to execute 'text' on 'Aworker.files'"));
    return internals.encoding.decodeUtf8(bytes);
  },
  async blob(path, options = undefined) {
    const type = option(options, 'type');
    const bytes = await read(toPath(path, "Failed to execute 'blob' on 'Aworker.files'"));
    return new Blob([bytes], type === undefined ? undefined : { type });
  },
  stream(path, options = undefined) {
    const source = new Source(
      toPath(path, "Failed to execute 'stream' on 'Aworker.files'"),
      toOffset(option(options, 'start'), 'start') ?? 0,
      toOffset(option(options, 'end'), 'end') ?? Infinity,
    );
    return streams.body.createBytes(async (controller) => {
      const chunk = await source.next();
      if (chunk !== undefined) {
        controller.enqueue(chunk);
        return;
      }
      controller.close();
    }, () => source.close());
  },
  async stat(path, options = undefined) {
    const follow = option(options, 'followLinks') ?? true;
    try {
      const { 0: kind, 1: size, 2: modified, 3: mode } = await ops.file_stat(
        toPath(path, "Failed to execute 'stat' on 'Aworker.files'"),
        !!follow,
      );
      return { kind, size, lastModified: modified, mode };
    } catch (error) {
      throw converted(error);
    }
  },
  async list(path) {
    try {
      const flat = await ops.file_list(toPath(path, "Failed to execute 'list' on 'Aworker.files'"));
      const entries = [];
      for (let i = 0; i < flat.length; i += 2) entries[i / 2] = { name: flat[i], kind: flat[i + 1] };
      return entries;
    } catch (error) {
      throw converted(error);
    }
  },
};
ObjectFreeze(files);
ObjectDefineProperty(globalThis.Aworker, 'files', {
  __proto__: null, value: files, writable: false, enumerable: true, configurable: true,
});

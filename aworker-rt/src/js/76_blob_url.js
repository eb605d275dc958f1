//! `blob:` URLs: URL.createObjectURL, URL.revokeObjectURL. Each worker of a seed draws its own URLs;
//! those that a seed has made are known to all its workers.
//! https://w3c.github.io/FileAPI/#url

const {
  Map,
  MapPrototypeDelete,
  MapPrototypeGet,
  MapPrototypeSet,
  ObjectDefineProperty,
  StringPrototypeIndexOf,
  StringPrototypeSlice,
  StringPrototypeStartsWith,
  TypeError,
} = primordials;
const { converters, requiredArguments } = internals.webidl;
const { isBlob } = internals.blob;
const { URL } = internals.url;

/** Blobs by URL. */
const store = new Map();

function withoutFragment(url) {
  const at = StringPrototypeIndexOf(url, '#');
  return at === -1 ? url : StringPrototypeSlice(url, 0, at);
}

const functions = {
  createObjectURL(obj) {
    const prefix = "Failed to execute 'createObjectURL' on 'URL'";
    requiredArguments(arguments.length, 1, prefix);
    if (!isBlob(obj)) throw new TypeError(`${prefix}: Argument 1 is not a Blob`);
    const url = `blob:${internals.workerScope.origin()}/${ops.random_uuid()}`;
    MapPrototypeSet(store, url, obj);
    return url;
  },
  revokeObjectURL(url) {
    requiredArguments(arguments.length, 1, "Failed to execute 'revokeObjectURL' on 'URL'");
    // A URL with a fragment is none that was made.
    MapPrototypeDelete(store, converters.DOMString(url));
  },
};

for (const name of ['createObjectURL', 'revokeObjectURL']) {
  ObjectDefineProperty(URL, name, {
    __proto__: null, value: functions[name], writable: true, enumerable: true, configurable: true,
  });
}

internals.blobUrls = {
  /** The Blob of a URL, or undefined. */
  resolve: (url) => (StringPrototypeStartsWith(url, 'blob:') ? MapPrototypeGet(store, withoutFragment(url)) : undefined),
};

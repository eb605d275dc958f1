//! atob and btoa. https://html.spec.whatwg.org/#atob

const { converters, requiredArguments } = internals.webidl;
const { DOMException } = internals;

// Methods, and so no constructors.
internals.base64 = {
  atob(data) {
    const prefix = "Failed to execute 'atob'";
    requiredArguments(arguments.length, 1, prefix);
    const result = ops.atob(converters.DOMString(data, prefix, 'Argument 1'));
    if (result === undefined) {
      throw new DOMException(`${prefix}: the string is not correctly encoded`, 'InvalidCharacterError');
    }
    return result;
  },

  btoa(data) {
    const prefix = "Failed to execute 'btoa'";
    requiredArguments(arguments.length, 1, prefix);
    const result = ops.btoa(converters.DOMString(data, prefix, 'Argument 1'));
    if (result === undefined) {
      throw new DOMException(`${prefix}: the string has characters outside of Latin-1`, 'InvalidCharacterError');
    }
    return result;
  },
};

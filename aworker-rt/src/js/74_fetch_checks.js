//! What a request must not do and a response must be: ports that are other protocols', and the integrity of a body.
//! https://fetch.spec.whatwg.org/#port-blocking, https://w3c.github.io/webappsec-subresource-integrity/

const { RegExpPrototypeExec, RegExpPrototypeSymbolReplace, RegExpPrototypeSymbolSplit, StringPrototypeReplaceAll } = primordials;
const { urlParts } = internals.workerScope;

/**
 * Ports of protocols that a request could be mistaken for. https://fetch.spec.whatwg.org/#port-blocking
 */
const badPorts = { __proto__: null };
for (const port of [
  0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113,
  115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563,
  587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668,
  6669, 6679, 6697, 10080,
]) badPorts[port] = true;

/** Whether a URL of HTTP has such a port. */
function isBadPort(url) {
  return badPorts[urlParts.port(url)] === true;
}

/** Base64 without what fills its last group. */
function withoutPadding(text) {
  return RegExpPrototypeSymbolReplace(/=+$/, text, '');
}

const integrityItem = /^(sha256|sha384|sha512)-([A-Za-z0-9+/_-]+={0,2})(?:\?.*)?$/;

/** https://w3c.github.io/webappsec-subresource-integrity/#does-response-match-metadatalist */
function matchesIntegrity(bytes, integrity) {
  const items = RegExpPrototypeSymbolSplit(/[\t\n\f\r ]+/, integrity);
  let strongest = '';
  for (let i = 0; i < items.length; i++) {
    const match = RegExpPrototypeExec(integrityItem, items[i]);
    if (match !== null && match[1] > strongest) strongest = match[1];
  }
  if (strongest === '') return true;
  const digest = ops.net_digest(strongest, bytes);
  for (let i = 0; i < items.length; i++) {
    const match = RegExpPrototypeExec(integrityItem, items[i]);
    if (match === null || match[1] !== strongest) continue;
    const plain = StringPrototypeReplaceAll(StringPrototypeReplaceAll(match[2], '-', '+'), '_', '/');
    if (withoutPadding(plain) === withoutPadding(digest)) return true;
  }
  return false;
}

internals.fetchChecks = { isBadPort, matchesIntegrity };

//! What a request tells of where it comes from: `Referer` and `Origin`. A worker has an origin only where its location is a
//! URL of HTTP (`--location`); without one nothing is told, and no mode forbids anything.
//! https://fetch.spec.whatwg.org/#append-a-request-origin-header, https://w3c.github.io/webappsec-referrer-policy/#algorithms

const { RegExpPrototypeExec, RegExpPrototypeSymbolSplit, StringPrototypeSlice, StringPrototypeToLowerCase } = primordials;
const { URL } = internals.url;
const { baseURL, urlParts } = internals.workerScope;
const { append, guards, has } = internals.headers;

/** Longer referrers are cut to their origin. */
const maxReferrerLength = 4096;

/** The policy of a request that names none. */
const defaultPolicy = 'strict-origin-when-cross-origin';
const policies = {
  __proto__: null, 'no-referrer': true, 'no-referrer-when-downgrade': true, 'same-origin': true, 'origin': true, 'strict-origin': true,
  'origin-when-cross-origin': true, [defaultPolicy]: true, 'unsafe-url': true,
};

const loopback = /^(?:127(?:\.[0-9]+){3}|\[::1\]|(?:.+\.)?localhost\.?)$/;

/** https://w3c.github.io/webappsec-secure-contexts/#is-url-trustworthy, for URLs of HTTP. */
function isTrustworthy(url) {
  return urlParts.protocol(url) === 'https:' || RegExpPrototypeExec(loopback, urlParts.hostname(url)) !== null;
}

/** The last policy that a Referrer-Policy field names, or an empty string. */
function policyOf(field) {
  let found = '';
  const tokens = RegExpPrototypeSymbolSplit(/[\t ]*,[\t ]*/, field);
  for (let i = 0; i < tokens.length; i++) {
    const name = StringPrototypeToLowerCase(tokens[i]);
    if (policies[name] === true) found = name;
  }
  return found;
}

/** https://w3c.github.io/webappsec-referrer-policy/#strip-url; undefined for what is not of HTTP. */
function stripped(text) {
  const url = new URL(text);
  const protocol = urlParts.protocol(url);
  if (protocol !== 'http:' && protocol !== 'https:') return undefined;
  const whole = `${urlParts.origin(url)}${urlParts.pathname(url)}${urlParts.search(url)}`;
  return { url, whole, origin: `${urlParts.origin(url)}/` };
}

/** Where the request of one fetch comes from, through its redirects. */
class Sender {
  #origin;
  #mode;
  #policy;
  /** What would be told if the policy said so: a URL as text, or undefined. */
  #referrer;
  #url;
  #isCors = false;
  /** It went through a third origin: https://fetch.spec.whatwg.org/#concept-request-tainted-origin */
  #isTainted = false;

  constructor(home, { mode, referrer, referrerPolicy }) {
    this.#origin = urlParts.origin(new URL(home));
    this.#mode = mode;
    this.#policy = referrerPolicy === '' ? defaultPolicy : referrerPolicy;
    this.#referrer = referrer === '' ? undefined : referrer === 'about:client' ? home : referrer;
  }

  /** The request goes to a URL now; whether its mode lets it. */
  visit(url) {
    const origin = urlParts.origin(url);
    if (this.#url !== undefined) {
      const last = urlParts.origin(this.#url);
      if (last !== origin && last !== this.#origin) this.#isTainted = true;
    }
    this.#url = url;
    if (origin !== this.#origin || this.#isCors) {
      if (this.#mode === 'same-origin') return false;
      this.#isCors = this.#mode === 'cors';
    }
    if (this.#referrer !== undefined) this.#referrer = this.#toldReferrer();
    return true;
  }

  /** A redirect has this Referrer-Policy field. */
  hear(field) {
    const policy = policyOf(field);
    if (policy !== '') this.#policy = policy;
  }

  /** https://w3c.github.io/webappsec-referrer-policy/#determine-requests-referrer */
  #toldReferrer() {
    const from = stripped(this.#referrer);
    if (from === undefined) return undefined;
    const { origin } = from;
    const whole = from.whole.length > maxReferrerLength ? origin : from.whole;
    const isSame = urlParts.origin(from.url) === urlParts.origin(this.#url);
    const isDowngrade = isTrustworthy(from.url) && !isTrustworthy(this.#url);
    switch (this.#policy) {
      case 'no-referrer':
        return undefined;
      case 'origin':
        return origin;
      case 'unsafe-url':
        return whole;
      case 'same-origin':
        return isSame ? whole : undefined;
      case 'strict-origin':
        return isDowngrade ? undefined : origin;
      case 'origin-when-cross-origin':
        return isSame ? whole : origin;
      case 'no-referrer-when-downgrade':
        return isDowngrade ? undefined : whole;
      default:
        return isSame ? whole : isDowngrade ? undefined : origin;
    }
  }

  /** What `Origin` says; undefined for none. */
  #toldOrigin(method) {
    const told = this.#isTainted ? 'null' : this.#origin;
    if (this.#isCors) return told;
    if (method === 'GET' || method === 'HEAD') return undefined;
    if (this.#mode === 'cors') return told;
    switch (this.#policy) {
      case 'no-referrer':
        return 'null';
      case 'same-origin':
        return urlParts.origin(this.#url) === this.#origin ? told : 'null';
      case 'no-referrer-when-downgrade':
      case 'strict-origin':
      case 'strict-origin-when-cross-origin': {
        const isDowngrade = StringPrototypeSlice(this.#origin, 0, 6) === 'https:' && urlParts.protocol(this.#url) !== 'https:';
        return isDowngrade ? 'null' : told;
      }
      default:
        return told;
    }
  }

  /** Adds the fields to a list, where the script has not set them itself. */
  addFields(list, method) {
    if (this.#referrer !== undefined && !has(list, 'referer')) append(list, 'referer', this.#referrer, guards.none);
    const origin = this.#toldOrigin(method);
    if (origin !== undefined && !has(list, 'origin')) append(list, 'origin', origin, guards.none);
  }
}

internals.fetchOrigin = {
  /** The Sender of a request with these options; undefined where the worker has no origin. */
  senderOf: (options) => {
    const home = baseURL();
    return home === undefined ? undefined : new Sender(home, options);
  },
};

// Runs in two runtimes with WebCrypto. `make` writes keys in every format with what they signed and
// sealed; `check` reads such a file, uses its keys both ways, and writes what it made for the
// other to check again. The last line says how many things agreed.

const { subtle } = crypto;
const encoder = new TextEncoder();
const data = encoder.encode('what both sides know');
const base64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const rsa = (name, hash, modulusLength = 2048) => ({
  generate: { name, hash, modulusLength, publicExponent: new Uint8Array([1, 0, 1]) },
  import: { name, hash },
});

/** Algorithms by title: how to generate and import, and what to use them with. */
const cases = {};
for (const hash of ['SHA-1', 'SHA-256', 'SHA-384', 'SHA-512']) {
  cases[`RSASSA ${hash}`] = { ...rsa('RSASSA-PKCS1-v1_5', hash), use: 'sign', parameters: { name: 'RSASSA-PKCS1-v1_5' } };
  cases[`PSS ${hash}`] = { ...rsa('RSA-PSS', hash), use: 'sign', parameters: { name: 'RSA-PSS', saltLength: 17 } };
  cases[`OAEP ${hash}`] = { ...rsa('RSA-OAEP', hash), use: 'seal', parameters: { name: 'RSA-OAEP', label: encoder.encode('label') } };
  for (const namedCurve of ['P-256', 'P-384', 'P-521']) {
    const algorithm = { name: 'ECDSA', namedCurve };
    cases[`ECDSA ${namedCurve} ${hash}`] = { generate: algorithm, import: algorithm, use: 'sign', parameters: { name: 'ECDSA', hash } };
  }
}
cases['PSS without salt'] = { ...rsa('RSA-PSS', 'SHA-256', 3072), use: 'sign', parameters: { name: 'RSA-PSS', saltLength: 0 } };
for (const namedCurve of ['P-256', 'P-384', 'P-521']) {
  const algorithm = { name: 'ECDH', namedCurve };
  cases[`ECDH ${namedCurve}`] = { generate: algorithm, import: algorithm, use: 'agree', parameters: algorithm };
}
cases.Ed25519 = { generate: { name: 'Ed25519' }, import: { name: 'Ed25519' }, use: 'sign', parameters: { name: 'Ed25519' } };
cases.X25519 = { generate: { name: 'X25519' }, import: { name: 'X25519' }, use: 'agree', parameters: { name: 'X25519' } };

const usages = { sign: [['sign'], ['verify']], seal: [['decrypt'], ['encrypt']], agree: [['deriveBits'], []] };

async function exportAs(format, key) {
  const exported = await subtle.exportKey(format, key);
  return format === 'jwk' ? exported : base64(exported);
}

function importAs(format, text, algorithm, wanted) {
  return subtle.importKey(format, format === 'jwk' ? text : bytes(text), algorithm, true, wanted);
}

/** A pair of keys in all formats, and what its private or public half made. */
async function makeOne({ generate, use, parameters }) {
  const { privateKey, publicKey } = await subtle.generateKey(generate, true, usages[use].flat());
  const made = { private: {}, public: {} };
  for (const format of ['pkcs8', 'jwk']) made.private[format] = await exportAs(format, privateKey);
  for (const format of ['spki', 'jwk']) made.public[format] = await exportAs(format, publicKey);
  if (!generate.modulusLength) made.public.raw = await exportAs('raw', publicKey);
  if (use === 'sign') made.signature = base64(await subtle.sign(parameters, privateKey, data));
  if (use === 'seal') made.sealed = base64(await subtle.encrypt(parameters, publicKey, data));
  if (use === 'agree') {
    const other = await subtle.generateKey(generate, true, ['deriveBits']);
    made.other = await exportAs('spki', other.publicKey);
    made.secret = base64(await subtle.deriveBits({ ...parameters, public: other.publicKey }, privateKey, null));
  }
  return made;
}

let agreed = 0;
function agree(holds, what) {
  if (!holds) throw new Error(`${what} does not agree`);
  agreed++;
}

async function checkOne(title, { import: algorithm, use, parameters }, made) {
  const [privateUsages, publicUsages] = usages[use];
  const publicKeys = await Promise.all(
    Object.entries(made.public).map(([format, text]) => importAs(format, text, algorithm, publicUsages)),
  );
  const privateKeys = await Promise.all(
    Object.entries(made.private).map(([format, text]) => importAs(format, text, algorithm, privateUsages)),
  );
  for (const key of privateKeys) {
    agree((await exportAs('pkcs8', key)) === made.private.pkcs8, `${title}: pkcs8`);
    if (use === 'seal') agree(base64(await subtle.decrypt(parameters, key, bytes(made.sealed))) === base64(data), `${title}: sealed`);
    if (use === 'agree') {
      const other = await importAs('spki', made.other, algorithm, []);
      agree(base64(await subtle.deriveBits({ ...parameters, public: other }, key, null)) === made.secret, `${title}: secret`);
    }
  }
  for (const key of publicKeys) {
    agree((await exportAs('spki', key)) === made.public.spki, `${title}: spki`);
    if (use === 'sign') agree(await subtle.verify(parameters, key, bytes(made.signature), data), `${title}: signature`);
  }
}

/** Outputs that have no randomness: both sides must print the same. */
async function fixed() {
  const result = {};
  const secret = Uint8Array.from({ length: 32 }, (_, i) => i * 7);
  const long = Uint8Array.from({ length: 5000 }, (_, i) => i * i);
  for (const hash of ['SHA-1', 'SHA-256', 'SHA-384', 'SHA-512']) {
    result[`digest ${hash}`] = base64(await subtle.digest(hash, long));
    const hmac = await subtle.importKey('raw', secret, { name: 'HMAC', hash }, true, ['sign']);
    result[`hmac ${hash}`] = base64(await subtle.sign('HMAC', hmac, long));
    for (const name of ['HKDF', 'PBKDF2']) {
      const key = await subtle.importKey('raw', secret, name, false, ['deriveBits']);
      const parameters = { name, hash, salt: data, info: data, iterations: 77 };
      result[`${name} ${hash}`] = base64(await subtle.deriveBits(parameters, key, 1000 * 8));
    }
  }
  for (const length of [16, 24, 32]) {
    for (const size of [0, 1, 15, 16, 17, 4999]) {
      for (const parameters of [
        { name: 'AES-CBC', iv: secret.subarray(0, 16) },
        { name: 'AES-CTR', counter: new Uint8Array(16).fill(255), length: 64 },
        { name: 'AES-GCM', iv: secret.subarray(0, 12), additionalData: data },
        { name: 'AES-GCM', iv: long.subarray(0, 60), tagLength: 96 },
      ]) {
        const key = await subtle.importKey('raw', secret.subarray(0, length), parameters.name, false, ['encrypt']);
        const title = `${parameters.name} ${length} ${size} ${parameters.tagLength ?? ''}`;
        result[title] = base64(await subtle.encrypt(parameters, key, long.subarray(0, size)));
      }
    }
    const wrapping = await subtle.importKey('raw', secret.subarray(0, length), 'AES-KW', false, ['wrapKey']);
    const key = await subtle.importKey('raw', long.subarray(0, 40), { name: 'HMAC', hash: 'SHA-1' }, true, ['sign']);
    result[`AES-KW ${length}`] = base64(await subtle.wrapKey('raw', key, wrapping, 'AES-KW'));
  }
  return result;
}

/** Makes everything, as JSON text. */
export async function make() {
  const file = { fixed: await fixed(), made: {} };
  for (const [title, algorithm] of Object.entries(cases)) file.made[title] = await makeOne(algorithm);
  return JSON.stringify(file);
}

/** Checks what another runtime made; how many things agreed. */
export async function check(text) {
  const file = JSON.parse(text);
  for (const [title, value] of Object.entries(await fixed())) agree(file.fixed[title] === value, title);
  for (const [title, algorithm] of Object.entries(cases)) await checkOne(title, algorithm, file.made[title]);
  return agreed;
}

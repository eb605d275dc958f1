//! Pattern strings of URLPattern: tokens, parts, regular expressions, and back.
//! https://urlpattern.spec.whatwg.org/#pattern-strings

const {
  ArrayPrototypePush,
  RegExp,
  RegExpPrototypeExec,
  SafeSet,
  StringFromCodePoint,
  StringPrototypeCodePointAt,
  StringPrototypeIncludes,
  StringPrototypeSlice,
  TypeError,
} = primordials;

/** What a wildcard matches, as a regular expression. */
const FULL_WILDCARD = '.*';

const identifierStart = /^[\p{ID_Start}$_]$/u;
const identifierPart = /^[\p{ID_Continue}$\u200c\u200d]$/u;
const digit = /^[0-9]/;

/** Whether a character may stand in a group's name. */
function isNameCharacter(character, isFirst) {
  return RegExpPrototypeExec(isFirst ? identifierStart : identifierPart, character) !== null;
}

/** The character at a position: one or two code units, or nothing at the end. */
function characterAt(text, index) {
  return index < text.length ? StringFromCodePoint(StringPrototypeCodePointAt(text, index)) : '';
}

function lastCharacter(text) {
  const code = StringPrototypeCodePointAt(text, text.length - 2);
  return text.length > 1 && code > 0xffff ? StringFromCodePoint(code) : StringPrototypeSlice(text, -1);
}

const singleTokens = { __proto__: null, '*': 'asterisk', '+': 'other-modifier', '?': 'other-modifier', '{': 'open', '}': 'close' };

/** https://urlpattern.spec.whatwg.org/#tokenizer */
class Tokenizer {
  input;
  isLenient;
  tokens = [];
  index = 0;

  constructor(input, isLenient) {
    this.input = input;
    this.isLenient = isLenient;
  }

  run() {
    const { input } = this;
    while (this.index < input.length) {
      const character = characterAt(input, this.index);
      const next = this.index + character.length;
      const single = singleTokens[character];
      if (single !== undefined) this.add(single, next, this.index, next);
      else if (character === '\\') this.escape(next);
      else if (character === ':') this.name(next);
      else if (character === '(') this.regexp(next);
      else this.add('char', next, this.index, next);
    }
    this.add('end', this.index, this.index, this.index);
    return this.tokens;
  }

  /** Adds a token whose value is the input from `start` to `end`, and goes on at `next`. */
  add(type, next, start, end) {
    ArrayPrototypePush(this.tokens, { type, index: this.index, value: StringPrototypeSlice(this.input, start, end) });
    this.index = next;
  }

  fail(next, start) {
    if (!this.isLenient) throw new TypeError(`The pattern '${this.input}' has a mistake at position ${this.index}`);
    this.add('invalid-char', next, start, next);
  }

  escape(next) {
    if (next >= this.input.length) return this.fail(next, this.index);
    const end = next + characterAt(this.input, next).length;
    return this.add('escaped-char', end, next, end);
  }

  name(start) {
    let end = start;
    for (;;) {
      const character = characterAt(this.input, end);
      if (character === '' || !isNameCharacter(character, end === start)) break;
      end += character.length;
    }
    if (end === start) return this.fail(start, this.index);
    return this.add('name', end, start, end);
  }

  regexp(start) {
    const end = this.regexpEnd(start);
    if (end === undefined || end - start === 1) return this.fail(start, this.index);
    return this.add('regexp', end, start, end - 1);
  }

  /** The position behind the closing parenthesis; undefined if there is none, or what stands between is not allowed. */
  regexpEnd(start) {
    const { input } = this;
    let depth = 1;
    for (let i = start; i < input.length; i++) {
      const character = input[i];
      if (character > '\x7f' || (i === start && character === '?')) return undefined;
      if (character === '\\') {
        i++;
        if (i >= input.length || input[i] > '\x7f') return undefined;
      } else if (character === ')') {
        if (--depth === 0) return i + 1;
      } else if (character === '(') {
        depth++;
        if (input[i + 1] !== '?') return undefined;
      }
    }
    return undefined;
  }
}

const modifiers = { __proto__: null, '?': 'optional', '*': 'zero-or-more', '+': 'one-or-more' };
const modifierTexts = { __proto__: null, none: '', optional: '?', 'zero-or-more': '*', 'one-or-more': '+' };

/** https://urlpattern.spec.whatwg.org/#parse-a-pattern-string */
class PatternParser {
  tokens;
  encode;
  options;
  segmentWildcard;
  parts = [];
  names = new SafeSet();
  pending = '';
  index = 0;
  nextNumericName = 0;

  constructor(input, options, encode) {
    this.tokens = new Tokenizer(input, false).run();
    this.options = options;
    this.encode = encode;
    this.segmentWildcard = segmentWildcardOf(options);
  }

  run() {
    while (this.index < this.tokens.length) {
      const char = this.take('char');
      const name = this.take('name');
      const matcher = this.takeMatcher(name);
      if (name !== undefined || matcher !== undefined) {
        let prefix = char?.value ?? '';
        if (prefix !== '' && prefix !== this.options.prefix) {
          this.pending += prefix;
          prefix = '';
        }
        this.flush();
        this.addPart(prefix, name, matcher, '', this.takeModifier());
        continue;
      }
      const fixed = char ?? this.take('escaped-char');
      if (fixed !== undefined) this.pending += fixed.value;
      else if (this.take('open') !== undefined) this.group();
      else this.end();
    }
    return this.parts;
  }

  group() {
    const prefix = this.takeText();
    const name = this.take('name');
    const matcher = this.takeMatcher(name);
    const suffix = this.takeText();
    this.require('close');
    this.addPart(prefix, name, matcher, suffix, this.takeModifier());
  }

  end() {
    this.flush();
    this.require('end');
  }

  take(type) {
    const token = this.tokens[this.index];
    if (token === undefined || token.type !== type) return undefined;
    this.index++;
    return token;
  }

  takeMatcher(name) {
    return this.take('regexp') ?? (name === undefined ? this.take('asterisk') : undefined);
  }

  takeModifier() {
    const token = this.take('other-modifier') ?? this.take('asterisk');
    return token === undefined ? 'none' : modifiers[token.value];
  }

  takeText() {
    let text = '';
    for (;;) {
      const token = this.take('char') ?? this.take('escaped-char');
      if (token === undefined) return text;
      text += token.value;
    }
  }

  require(type) {
    if (this.take(type) !== undefined) return;
    const token = this.tokens[this.index];
    throw new TypeError(`The pattern has '${token.value}' at position ${token.index}, where its ${type} is expected`);
  }

  /** Makes a part of the fixed text so far. */
  flush() {
    if (this.pending === '') return;
    const value = this.encode(this.pending);
    this.pending = '';
    ArrayPrototypePush(this.parts, { type: 'fixed-text', value, modifier: 'none', name: '', prefix: '', suffix: '' });
  }

  addPart(prefix, name, matcher, suffix, modifier) {
    if (name === undefined && matcher === undefined) {
      if (modifier === 'none') {
        this.pending += prefix;
        return;
      }
      this.flush();
      if (prefix === '') return;
      ArrayPrototypePush(this.parts, {
        type: 'fixed-text', value: this.encode(prefix), modifier, name: '', prefix: '', suffix: '',
      });
      return;
    }
    this.flush();
    let value = matcher === undefined ? this.segmentWildcard : matcher.type === 'asterisk' ? FULL_WILDCARD : matcher.value;
    let type = 'regexp';
    if (value === this.segmentWildcard) type = 'segment-wildcard';
    else if (value === FULL_WILDCARD) type = 'full-wildcard';
    if (type !== 'regexp') value = '';
    const groupName = name === undefined ? `${this.nextNumericName++}` : name.value;
    if (this.names.has(groupName)) throw new TypeError(`The pattern has two groups with the name '${groupName}'`);
    this.names.add(groupName);
    ArrayPrototypePush(this.parts, {
      type, value, modifier, name: groupName, prefix: this.encode(prefix), suffix: this.encode(suffix),
    });
  }
}

/** Puts a backslash before every character of a set. */
function escapeWith(set, text) {
  let escaped = '';
  for (let i = 0; i < text.length; i++) escaped += StringPrototypeIncludes(set, text[i]) ? `\\${text[i]}` : text[i];
  return escaped;
}

const escapePattern = (text) => escapeWith('+*?:{}()\\', text);
const escapeRegexp = (text) => escapeWith('.+*?^${}()[]|/\\', text);

/** What a group without an expression of its own matches. */
function segmentWildcardOf(options) {
  return `[^${escapeRegexp(options.delimiter)}]+?`;
}

/** The source of the regular expression of a part list, and the names of its groups. */
function toRegexp(parts, options) {
  const names = [];
  let source = '^';
  for (let i = 0; i < parts.length; i++) {
    const { type, value, modifier, name, prefix, suffix } = parts[i];
    const sign = modifierTexts[modifier];
    if (type === 'fixed-text') {
      source += modifier === 'none' ? escapeRegexp(value) : `(?:${escapeRegexp(value)})${sign}`;
      continue;
    }
    ArrayPrototypePush(names, name);
    const body = type === 'segment-wildcard' ? segmentWildcardOf(options) : type === 'full-wildcard' ? FULL_WILDCARD : value;
    const before = escapeRegexp(prefix);
    const after = escapeRegexp(suffix);
    const isSingle = modifier === 'none' || modifier === 'optional';
    if (prefix === '' && suffix === '') source += isSingle ? `(${body})${sign}` : `((?:${body})${sign})`;
    else if (isSingle) source += `(?:${before}(${body})${after})${sign}`;
    else source += `(?:${before}((?:${body})(?:${after}${before}(?:${body}))*)${after})${modifier === 'zero-or-more' ? '?' : ''}`;
  }
  return { source: `${source}$`, names };
}

/** https://urlpattern.spec.whatwg.org/#generate-a-pattern-string */
function toPatternString(parts, options) {
  let result = '';
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i];
    const sign = modifierTexts[part.modifier];
    if (part.type === 'fixed-text') {
      const text = escapePattern(part.value);
      result += part.modifier === 'none' ? text : `{${text}}${sign}`;
    } else {
      const isGrouped = needsGrouping(part, parts[i - 1], parts[i + 1], options);
      const text = groupText(part, parts[i - 1], isGrouped, options);
      result += isGrouped ? `{${text}}${sign}` : `${text}${sign}`;
    }
  }
  return result;
}

function hasCustomName(part) {
  return RegExpPrototypeExec(digit, part.name) === null;
}

/** Whether a part must stand in braces, so that it is read back as it is. */
function needsGrouping(part, previous, next, options) {
  if (part.suffix !== '' || (part.prefix !== '' && part.prefix !== options.prefix)) return true;
  const isBareName = hasCustomName(part) && part.type === 'segment-wildcard' && part.modifier === 'none';
  if (isBareName && next !== undefined && next.prefix === '' && next.suffix === '') {
    if (next.type !== 'fixed-text') {
      if (!hasCustomName(next)) return true;
    } else if (isNameCharacter(characterAt(next.value, 0), false)) {
      return true;
    }
  }
  return part.prefix === '' && previous !== undefined && previous.type === 'fixed-text' && options.prefix !== '' &&
    lastCharacter(previous.value) === options.prefix;
}

function groupText(part, previous, isGrouped, options) {
  const isCustom = hasCustomName(part);
  let text = escapePattern(part.prefix);
  if (isCustom) text += `:${part.name}`;
  if (part.type === 'regexp') {
    text += `(${part.value})`;
  } else if (part.type === 'segment-wildcard') {
    if (!isCustom) text += `(${segmentWildcardOf(options)})`;
  } else {
    const isStar = !isCustom && (previous === undefined || previous.type === 'fixed-text' || previous.modifier !== 'none' ||
      isGrouped || part.prefix !== '');
    text += isStar ? '*' : `(${FULL_WILDCARD})`;
  }
  if (part.type === 'segment-wildcard' && isCustom && part.suffix !== '' && isNameCharacter(characterAt(part.suffix, 0), false)) {
    text += '\\';
  }
  return text + escapePattern(part.suffix);
}

/**
 * https://urlpattern.spec.whatwg.org/#compile-a-component: `options` are `{ delimiter, prefix,
 * ignoreCase }`, `encode` makes URL text of fixed text.
 */
function compileComponent(input, encode, options) {
  const parts = new PatternParser(input, options, encode).run();
  const { source, names } = toRegexp(parts, options);
  let regexp;
  try {
    regexp = new RegExp(source, options.ignoreCase ? 'vi' : 'v');
  } catch (error) {
    throw new TypeError(`The pattern '${input}' is no valid regular expression: ${error.message}`);
  }
  let hasRegExpGroups = false;
  for (let i = 0; i < parts.length; i++) if (parts[i].type === 'regexp') hasRegExpGroups = true;
  return { pattern: toPatternString(parts, options), regexp, names, hasRegExpGroups };
}

internals.urlPatternParser = {
  compileComponent,
  escapePattern,
  /** (text) -> tokens, without complaint about mistakes. */
  tokenizeLeniently: (text) => new Tokenizer(text, true).run(),
};

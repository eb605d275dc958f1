//! Headers, Request, Response and FetchEvent as scripts see them, by the Fetch standard.

use std::process::Command;

/// Runs a script that calls `check(condition, what)` and prints what did not hold.
fn assert_script(script: &str) {
    let prelude = "
        const check = (ok, what) => { if (!ok) console.log('FAILED', what); };
        const equal = (a, b, what) => check(Object.is(a, b), `${what}: ${String(a)} is not ${String(b)}`);
        const throws = (type, f) => { try { f(); } catch (e) { equal(e.name, type, f); return; } check(false, `${f} does not throw`); };
        const rejects = async (type, p, what) => p.then(() => check(false, what), (e) => equal(e.name, type, what));
        (async () => {";
    let code = format!("{prelude}{script}\nconsole.log('done'); }})(); undefined");
    let output =
        Command::new(env!("CARGO_BIN_EXE_aworker")).args(["eval", &code]).output().expect("aworker runs");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((stdout.as_str(), stderr.as_str()), ("done\n", ""));
}

#[test]
fn headers_follow_the_standard() {
    assert_script(
        "const h = new Headers([['B', ' x\\t'], ['a', '1'], ['b', 'y'], ['Set-Cookie', 'p'], ['set-cookie', 'q']]);
         equal(h.get('B'), 'x, y', 'combined');
         equal(JSON.stringify([...h]), '[[\"a\",\"1\"],[\"b\",\"x, y\"],[\"set-cookie\",\"p\"],[\"set-cookie\",\"q\"]]', 'sorted');
         equal(h.getSetCookie().join(), 'p,q', 'cookies');
         equal(h.get('none'), null, 'absent');
         h.append('a', '2'); equal(h.get('A'), '1, 2', 'append');
         h.set('A', '3'); equal([...h.keys()].join(), 'a,b,set-cookie,set-cookie', 'set');
         h.delete('Set-Cookie'); equal(h.has('set-cookie'), false, 'delete');
         equal([...new Headers({ x: 1, y: 'z' }).values()].join(), '1,z', 'record');
         equal(new Headers(h).get('b'), 'x, y', 'copy');
         for (const name of ['', 'a b', 'a:', 'é', 'a\\n']) throws('TypeError', () => h.append(name, 'x'));
         for (const value of ['a\\nb', 'a\\0', '\\u0100', 'a\\rb']) throws('TypeError', () => h.append('x', value));
         equal(new Headers([['x', '\\n a \\r\\n']]).get('x'), 'a', 'normalised');
         throws('TypeError', () => new Headers([['a']]));
         throws('TypeError', () => new Headers(null));
         throws('TypeError', () => new Headers({ [Symbol.toStringTag]: 'x', a: 'b', get c() { throw new TypeError('x'); } }));
         throws('TypeError', () => Headers.prototype.get.call({}, 'a'));
         const seen = []; h.forEach(function (v, k, o) { seen.push(k, v, o === h, this.t); }, { t: 1 });
         equal(seen.join(), 'a,3,true,1,b,x, y,true,1', 'forEach');
         const iterator = h[Symbol.iterator](); equal(Object.prototype.toString.call(iterator), '[object Headers Iterator]', 'tag');
         throws('TypeError', () => Response.redirect('http://a/').headers.set('a', 'b'));",
    );
}

#[test]
fn responses_follow_the_standard() {
    assert_script(
        "const r = new Response('äb', { status: 201, statusText: 'Made' });
         equal([r.status, r.ok, r.statusText, r.type, r.url, r.redirected, r.bodyUsed].join(), '201,true,Made,default,,false,false', 'attributes');
         equal(r.headers.get('content-type'), 'text/plain;charset=UTF-8', 'type');
         const c = r.clone();
         equal(await r.text(), 'äb', 'text'); equal(r.bodyUsed, true, 'used');
         await rejects('TypeError', r.text(), 'twice'); throws('TypeError', () => r.clone());
         equal((await c.arrayBuffer()).byteLength, 3, 'bytes');
         equal((await new Response('{\"a\":[1]}').json()).a[0], 1, 'json');
         await rejects('SyntaxError', new Response('{').json(), 'bad json');
         equal(new Response().body, null, 'null body'); equal(await new Response().text(), '', 'empty');
         equal(new Response(new URLSearchParams({ a: 'b c' })).headers.get('content-type'), 'application/x-www-form-urlencoded;charset=UTF-8', 'form');
         equal(new Response(new Uint8Array(2)).headers.get('content-type'), null, 'no type');
         equal(new Response('x', { headers: { 'Content-Type': 'a/b' } }).headers.get('content-type'), 'a/b', 'own type');
         const view = new Uint8Array([1, 2, 3, 4]); const copied = new Response(view.subarray(1, 3)); view.fill(9);
         equal((await copied.bytes()).join(), '2,3', 'copied at once');
         equal(await new Response(new Blob(['x', 'y'], { type: 'a/c' })).text(), 'xy', 'blob');
         equal((await new Response('z', { headers: { 'content-type': 'a/d' } }).blob()).type, 'a/d', 'to blob');
         equal(Response.json({ a: 1 }).headers.get('content-type'), 'application/json', 'json type');
         throws('TypeError', () => Response.json(undefined)); throws('TypeError', () => Response.json(1n));
         equal(Response.redirect('http://a/b', 301).headers.get('location'), 'http://a/b', 'redirect');
         throws('RangeError', () => Response.redirect('http://a/', 200)); throws('TypeError', () => Response.redirect('///'));
         equal([Response.error().type, Response.error().status].join(), 'error,0', 'error');
         for (const status of [0, 101, 199, 600, 'x']) throws('RangeError', () => new Response('', { status }));
         for (const status of [204, 205, 304]) { throws('TypeError', () => new Response('', { status })); new Response(null, { status }); }
         throws('TypeError', () => new Response('', { statusText: 'a\\n' })); throws('TypeError', () => new Response('', { statusText: '\\u0100' }));
         throws('TypeError', () => Response('x')); throws('TypeError', () => new Response('', 1));
         const stream = new Response('streamed').body; equal(stream instanceof ReadableStream, true, 'stream');
         const reader = stream.getReader(); const { value } = await reader.read();
         equal(new TextDecoder().decode(value), 'streamed', 'chunk'); equal((await reader.read()).done, true, 'end');
         const source = () => new ReadableStream({ pull(k) { k.enqueue(new Uint8Array([65, 66])); k.close(); } });
         equal(await new Response(source()).text(), 'AB', 'from stream');
         const locked = new Response(source()); locked.body.getReader(); await rejects('TypeError', locked.text(), 'locked');
         const two = new Response(source()); const other = two.clone();
         equal((await two.text()) + (await other.text()), 'ABAB', 'teed');
         await rejects('TypeError', new Response(new ReadableStream({ pull(k) { k.enqueue('text'); } })).text(), 'string chunk');
         equal(await new Response('\\ufeffx').text(), 'x', 'mark'); equal(await new Response('\\ud800').text(), '\\ufffd', 'lone');
         equal(Object.prototype.toString.call(r), '[object Response]', 'tag');",
    );
}

#[test]
fn requests_follow_the_standard() {
    assert_script(
        "const r = new Request('HTTP://A:80/x/../y', { method: 'post', body: 'b', headers: { 'x-y': 'z' } });
         equal([r.method, r.url, r.headers.get('x-y'), r.headers.get('content-type')].join(), 'POST,http://a/y,z,text/plain;charset=UTF-8', 'attributes');
         equal(r.signal.aborted, false, 'signal'); equal(r.signal, r.signal, 'same signal');
         equal([r.redirect, r.cache, r.credentials, r.mode, r.duplex].join(), 'follow,default,same-origin,cors,half', 'options');
         const copy = new Request(r, { headers: { a: 'b' } });
         equal(r.bodyUsed, true, 'moved'); equal(await copy.text(), 'b', 'body'); equal(copy.headers.get('x-y'), null, 'replaced');
         throws('TypeError', () => new Request(r));
         const first = new Request('http://a/', { method: 'PUT', body: 'q' }); const second = first.clone();
         equal((await first.text()) + (await second.text()), 'qq', 'clone');
         equal(new Request('http://a/', { method: 'patch' }).method, 'patch', 'case');
         for (const method of ['CONNECT', 'trace', 'TRACK', 'a b', '']) throws('TypeError', () => new Request('http://a/', { method }));
         throws('TypeError', () => new Request('/relative')); throws('TypeError', () => new Request('http://u:p@a/'));
         throws('TypeError', () => new Request('http://a/', { body: 'x' })); throws('TypeError', () => new Request());
         throws('TypeError', () => new Request('http://a/', { signal: {} })); throws('TypeError', () => new Request('http://a/', { redirect: 'x' }));
         throws('TypeError', () => new Request('http://a/', { method: 'POST', body: new ReadableStream() }));
         throws('TypeError', () => new Request('http://a/', { referrer: 'http://:' })); throws('TypeError', () => new Request('http://a/', { referrerPolicy: 'x' }));
         throws('TypeError', () => new Request('http://a/', { mode: 'no-cors', method: 'PUT' })); throws('TypeError', () => new Request('http://a/', { cache: 'only-if-cached' }));
         equal(new Request('http://a/', { mode: 'no-cors', method: 'post' }).method, 'POST', 'a simple method');
         const init = { accept: 'a/b', 'accept-language': 'de, en;q=0.5', 'content-language': '<de>', 'content-type': 'Text/Plain ;x=y', authorization: 'x' };
         const free = new Request('http://a/', { mode: 'no-cors', headers: init }), kept = [...free.clone().headers].join(' ');
         equal(kept, 'accept,a/b accept-language,de, en;q=0.5 content-type,Text/Plain ;x=y', 'what no-cors lets through');
         free.headers.set('range', 'bytes=0-'); free.headers.append('accept', 'x'.repeat(125)); free.headers.set('accept', '(x)');
         equal([...free.headers].join(' '), kept, 'as is'); free.headers.append('accept', 'c'); equal(free.headers.get('accept'), 'a/b, c', 'appended');
         equal([...new Request('http://a/', { mode: 'no-cors', method: 'POST', body: new Blob(['{}'], { type: 'application/json' }) }).headers].length, 0, 'a type');
         equal(new Request('http://a/', { mode: 'no-cors', method: 'POST', body: 'x' }).headers.get('content-type'), 'text/plain;charset=UTF-8', 'text');
         equal([...new Request(free, { mode: 'cors', headers: init }).headers].length, 5, 'cors');
         equal(new Request('http://a/', { mode: 'same-origin', cache: 'only-if-cached', referrerPolicy: 'origin' }).referrerPolicy, 'origin', 'allowed');
         equal(new Request('http://a/', { referrer: 'http://b/' }).referrer, 'about:client', 'of another origin'); equal(new Request('http://a/', { referrer: '' }).referrer, '', 'none');
         const controller = new AbortController(); const followed = new Request('http://a/', { signal: controller.signal });
         controller.abort('why'); equal(followed.signal.reason, 'why', 'follows');
         class Mine extends Request { get extra() { return 1; } } equal(new Mine('http://a/').extra, 1, 'subclass');
         equal(Object.prototype.toString.call(r), '[object Request]', 'tag');",
    );
}

#[test]
fn fetch_events_follow_the_standard() {
    assert_script(
        "const request = new Request('http://a/');
         const e = new FetchEvent('fetch', { request, clientId: 'c' });
         equal(e.request, request, 'request'); equal(e.clientId, 'c', 'client'); equal(e instanceof ExtendableEvent, true, 'kind');
         throws('InvalidStateError', () => e.respondWith(new Response()));
         throws('TypeError', () => new FetchEvent('fetch')); throws('TypeError', () => new FetchEvent('fetch', {}));
         throws('TypeError', () => FetchEvent.prototype.respondWith.call({}, 1));
         equal('dispatch' in FetchEvent, false, 'no inner function is seen'); equal('bodyOf' in Request, false, 'nor here');",
    );
}

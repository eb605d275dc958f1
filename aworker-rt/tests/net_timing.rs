//! What fetches leave on the performance timeline.

mod net_support;
mod temporary;

use net_support::{Answer, Peer, ok, run};

fn peer() -> Peer {
    Peer::start(|request| match request.path() {
        "/redirect" => {
            Answer::Keep(b"HTTP/1.1 302 Found\r\nLocation: /text\r\nContent-Length: 0\r\n\r\n".to_vec())
        }
        "/none" => Answer::Keep(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "/text" => Answer::Keep(
            b"HTTP/1.1 404 Not Found\r\nContent-Type: Text/Plain;charset=x\r\nContent-Length: 5\r\n\r\nhello"
                .to_vec(),
        ),
        _ => ok("x"),
    })
}

#[test]
fn a_fetch_is_a_resource_of_the_timeline_when_its_body_has_ended() {
    let peer = peer();
    run(
        "timing",
        &peer.url(""),
        "const resources = () => performance.getEntriesByType('resource');
         const seen = new Promise((done) => new PerformanceObserver((list) => done(list.getEntries())).observe({ type: 'resource' }));
         const response = await fetch(base + '/text?q'); same(resources().length, 0, 'the body has not ended'); await response.text();
         const first = await fetch(base + '/text'); await first.text();
         same((await seen).map((entry) => entry.name).includes(base + '/text?q'), true);
         const [, entry] = resources();
         same([entry.name, entry.entryType, entry.initiatorType, entry.responseStatus, entry.contentType].join(), `${base}/text,resource,fetch,404,text/plain;charset=x`);
         same([entry.decodedBodySize, entry.encodedBodySize, entry.transferSize].join(), '5,5,305');
         const order = [0, entry.startTime, entry.fetchStart, entry.requestStart, entry.responseStart, entry.responseEnd, performance.now()];
         same(order.every((time, i) => i === 0 || time >= order[i - 1]), true, order.join());
         same([entry.redirectStart, entry.redirectEnd, entry.secureConnectionStart, entry.workerStart].join(), '0,0,0,0');
         same(Math.abs(entry.startTime + entry.duration - entry.responseEnd) < 1e-6, true, 'duration');
         same(JSON.stringify(entry.toJSON()) === JSON.stringify(entry) && entry.toJSON().responseStatus, 404);
         same(Object.prototype.toString.call(entry), '[object PerformanceResourceTiming]');
         performance.clearResourceTimings(); performance.mark('m'); same(resources().length, 0); same(performance.getEntries().length, 1);
         await fetch(base + '/none'); await (await fetch('data:,x')).text(); same(resources().map((one) => [one.responseStatus, one.decodedBodySize].join()).join(';'), '204,0');
         performance.clearResourceTimings();
         await (await fetch(base + '/redirect')).text();
         const [redirected] = resources(); same(redirected.name, base + '/redirect'); same(redirected.redirectStart, redirected.startTime);
         same(redirected.redirectEnd >= redirected.redirectStart && redirected.redirectEnd > 0 && redirected.fetchStart === redirected.redirectEnd, true, 'redirect');
         performance.clearResourceTimings();
         await fails(fetch('http://127.0.0.1:1/'), /./); await fails(fetch('http://127.0.0.1:2/'), /./);
         same(resources().filter((one) => one.responseStatus === 0 && one.transferSize === 0 && one.responseEnd > 0).length, 2, 'failed');
         await (await fetch(base)).body.cancel(); same(resources().length, 3, 'a body that nobody wants');",
    );
}

#[test]
fn a_full_buffer_of_resources_is_told() {
    let peer = peer();
    run(
        "timing-full",
        &peer.url(""),
        "const names = () => performance.getEntriesByType('resource').map((entry) => entry.name.at(-1)).join('');
         const get = async (name) => { await (await fetch(`${base}/${name}`)).text(); };
         let told = 0; let isTold; let more = new Promise((done) => { isTold = done; });
         performance.setResourceTimingBufferSize(2);
         performance.onresourcetimingbufferfull = () => { told++; performance.setResourceTimingBufferSize(3); isTold(); };
         await get('a'); await get('b'); same(told, 0);
         await get('c'); await more; await Promise.resolve(); same(names(), 'abc');
         // Nobody makes room: what does not fit is lost.
         more = new Promise((done) => { isTold = done; });
         await get('d'); await more; await new Promise((done) => setTimeout(done)); same(names(), 'abc'); same(told, 2);
         performance.onresourcetimingbufferfull = () => { told++; performance.clearResourceTimings(); isTold(); };
         more = new Promise((done) => { isTold = done; });
         await get('e'); await more; await Promise.resolve(); same(names(), 'e'); same(told, 3);
         performance.onresourcetimingbufferfull = null;
         for (let i = 0; i < 5; i++) await get('f'); same(names().length, 3);
         performance.setResourceTimingBufferSize(0); performance.clearResourceTimings(); await get('g'); same(names(), '');",
    );
}

// The native operations, in one list: `name => path of the Rust function`.
//
// JavaScript built-ins call them as `ops.name(...)`. The library takes the paths,
// the build script only the names (see `ops.rs` and `build.rs`), so this file is
// included by both and holds nothing else. Sort by file, then by name.

/// Calls `$with!` with every operation.
macro_rules! for_each_op {
    ($with:ident) => {
        $with! {
            error_location => crate::engine::exceptions::error_location,
            report_exception => crate::engine::uncaught::report_exception,
            hold => crate::event_loop::hold,
            print => crate::engine::stdio::print,
            queue_microtask => crate::event_loop::queue_microtask,
            release => crate::event_loop::release,
            timer_cancel => crate::event_loop::timer_cancel,
            timer_start => crate::event_loop::timer_start,
            http_body_pull => crate::http::ops::http_body_pull,
            http_body_whole => crate::http::ops::http_body_whole,
            http_end => crate::http::ops::http_end,
            http_fail => crate::http::ops::http_fail,
            http_has_body => crate::http::ops::http_has_body,
            http_head => crate::http::ops::http_head,
            http_headers => crate::http::ops::http_headers,
            http_method => crate::http::ops::http_method,
            http_respond => crate::http::ops::http_respond,
            http_start => crate::http::ops::http_start,
            http_url => crate::http::ops::http_url,
            http_write => crate::http::ops::http_write,
            atob => crate::web::atob,
            btoa => crate::web::btoa,
            buffer_length => crate::web::console::buffer_length,
            buffer_preview => crate::web::console::buffer_preview,
            error_stack => crate::web::console::error_stack,
            is_proxy => crate::web::console::is_proxy,
            is_shared_array_buffer => crate::web::console::is_shared_array_buffer,
            preview_entries => crate::web::console::preview_entries,
            promise_details => crate::web::console::promise_details,
            prototype_of => crate::web::console::prototype_of,
            proxy_target => crate::web::console::proxy_target,
            value_kind => crate::web::console::value_kind,
            version => crate::web::console::version,
            random_fill => crate::web::crypto::random_fill,
            random_uuid => crate::web::crypto::random_uuid,
            encoding_for_label => crate::web::encoding::encoding_for_label,
            text_decode => crate::web::encoding::text_decode,
            text_decoder_decode => crate::web::encoding::text_decoder_decode,
            text_decoder_free => crate::web::encoding::text_decoder_free,
            text_decoder_new => crate::web::encoding::text_decoder_new,
            utf8_encode => crate::web::encoding::utf8_encode,
            utf8_encode_into => crate::web::encoding::utf8_encode_into,
            form_parse => crate::web::form::form_parse,
            form_serialize => crate::web::form::form_serialize,
            performance_now => crate::web::performance::performance_now,
            performance_time_origin => crate::web::performance::performance_time_origin,
            structured_clone => crate::web::structured_clone::structured_clone,
            url_origin => crate::web::url::url_origin,
            url_parse => crate::web::url::url_parse,
            url_set => crate::web::url::url_set,
        }
    };
}

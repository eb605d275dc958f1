//! CPU profiles of a whole run: V8's sampling profiler, in the format that DevTools reads.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use v8::inspector::{
    Channel, ChannelImpl, StringBuffer, V8Inspector, V8InspectorClient, V8InspectorClientImpl,
    V8InspectorClientTrustLevel, V8InspectorSession,
};

use super::{GROUP, view};

/// A profile that is being made.
pub(crate) struct Profile {
    session: V8InspectorSession,
    _inspector: V8Inspector,
    answer: Rc<RefCell<String>>,
    path: PathBuf,
}

struct Quiet;

impl V8InspectorClientImpl for Quiet {}

/// Keeps the last answer.
struct Answers(Rc<RefCell<String>>);

impl ChannelImpl for Answers {
    fn send_response(&self, _: i32, message: v8::UniquePtr<StringBuffer>) {
        if let Some(message) = message.as_ref() {
            self.0.replace(message.string().to_string());
        }
    }

    fn send_notification(&self, _: v8::UniquePtr<StringBuffer>) {}

    fn flush_protocol_notifications(&self) {}
}

impl Profile {
    /// Begins.
    pub(crate) fn start(scope: &mut v8::PinScope<'_, '_>, path: &Path) -> Profile {
        let inspector = V8Inspector::create(scope, V8InspectorClient::new(Box::new(Quiet)));
        let context = scope.get_current_context();
        inspector.context_created(context, GROUP, view("profile"), view("{}"));
        let answer = Rc::<RefCell<String>>::default();
        let channel = Channel::new(Box::new(Answers(Rc::clone(&answer))));
        let trust = V8InspectorClientTrustLevel::FullyTrusted;
        let session = inspector.connect(GROUP, channel, view("{}"), trust);
        session.dispatch_protocol_message(view(r#"{"id":1,"method":"Profiler.enable"}"#));
        session.dispatch_protocol_message(view(r#"{"id":2,"method":"Profiler.start"}"#));
        Profile { session, _inspector: inspector, answer, path: path.to_owned() }
    }

    /// Ends, and writes the file.
    ///
    /// # Errors
    /// As open(2) and write(2); V8 gave no profile.
    pub(crate) fn write(self) -> Result<(), String> {
        self.session.dispatch_protocol_message(view(r#"{"id":3,"method":"Profiler.stop"}"#));
        let mut answer: serde_json::Value = serde_json::from_str(&self.answer.borrow())
            .map_err(|error| format!("read the profile: {error}"))?;
        let profile = answer["result"]["profile"].take();
        if profile.is_null() {
            return Err("V8 made no profile".to_owned());
        }
        let failed = |error| format!("write {}: {error}", self.path.display());
        std::fs::write(&self.path, profile.to_string()).map_err(failed)
    }
}

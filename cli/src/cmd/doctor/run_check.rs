//! Whether `lastack run` works here: a sandbox is made as `run` makes it, and thrown away.
//!
//! Not here: what stands in the way and what allows it (`lastack_gateway::sandbox` knows, for `run` says the same).

use std::io::{self, Write};

use lastack_gateway::sandbox::{Sandbox, SandboxConfig};
use lastack_observe::words::Lang;
use serde_json::{Value, json};

use crate::text::paragraph;

/// What `run` would say.
pub(crate) struct RunCheck {
    /// Error, cause and remedy; `None` where it works.
    refused: Option<[String; 3]>,
}

impl RunCheck {
    /// Tries it: a few milliseconds.
    pub(super) fn now() -> Self {
        let refused = Sandbox::create(&SandboxConfig::new("true", [])).err().map(|error| {
            let (cause, remedy) = error.cause_and_remedy();
            [error.what(), cause, remedy]
        });
        Self { refused }
    }

    /// Its part of the document.
    pub(super) fn to_json(&self) -> Value {
        match &self.refused {
            None => json!({"works": true}),
            Some([error, cause, remedy]) => {
                json!({"works": false, "error": error, "cause": cause, "try": remedy})
            }
        }
    }

    /// Says what stands in the way, and nothing where nothing does. It is no finding: the connections are well.
    pub(super) fn write(&self, lang: Lang, out: &mut dyn Write) -> io::Result<()> {
        let Some([error, cause, remedy]) = &self.refused else { return Ok(()) };
        let [label, next] = match lang {
            Lang::En => ["lastack run does not work here: ", "  to allow it: "],
            Lang::Zh => ["lastack run 在此无法运行：", "  允许的办法："],
        };
        paragraph(out, label, &format!("{error}: {cause}"))?;
        paragraph(out, next, remedy)
    }
}

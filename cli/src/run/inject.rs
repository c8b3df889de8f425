//! `--inject`: read, or refused in three lines.

use lastack_gateway::inject::{Event, Injection, InjectionError};

use crate::failure::{EXIT_OURS, Failure};

/// Reads every `--inject`.
pub(crate) fn read(texts: &[String]) -> Result<Vec<Injection>, Failure> {
    texts.iter().map(|text| text.parse().map_err(|error| refused(text, &error))).collect()
}

/// True when packets of single connections are to vanish: the link has to do that.
pub(crate) fn needs_link(injections: &[Injection]) -> bool {
    injections.iter().any(|injection| injection.event == Event::BlackHole)
}

fn refused(text: &str, error: &InjectionError) -> Failure {
    let remedy = match error {
        InjectionError::Event => {
            let names: Vec<_> = Event::ALL.iter().map(|event| event.name()).collect();
            format!("one of {}: --inject rst@5s", names.join(", "))
        }
        InjectionError::NoWhen => "--inject rst@5s, --inject stall@1MB".to_owned(),
        InjectionError::When => "--inject rst@500ms, --inject zero-window@1MB".to_owned(),
        InjectionError::Destination(_) => "as in a rule: --inject rst@5s,192.0.2.10:443".to_owned(),
    };
    Failure::new(format!("cannot read --inject `{text}`"), error.to_string(), remedy).code(EXIT_OURS)
}

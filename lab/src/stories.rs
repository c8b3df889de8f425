//! Stories: named, reproducible connection lives, told on our stack and on Linux.
//!
//! A [`Story`] is data (what happens, which findings and excerpts it tells, how it must end) and a small program of
//! steps over a [`Stage`] with two hosts. On the target `stack` both hosts are stacks of ours in virtual time; on
//! `kernel` the end whose behaviour is taught is Linux in a fresh namespace, the other one a stack of ours, in real time.
//! Reading order: [`Story`], `stage` (what a step can do), `watch` (what is noticed), [`record`], [`outline`] (what
//! can be compared), [`chart`], and one file a story in `tales`.
//!
//! # Example
//! ```
//! use lastack_lab::stories;
//!
//! let story = stories::by_id("fin-wait-1-zero-window").expect("the story of the first screen");
//! let record = story.on_stack(&stories::Options::default()).expect("five minutes pass at once");
//! assert!(record.path(stories::Side::Server, 0).ends_with("FIN-WAIT-1 gone"));
//! ```

pub mod chart;
mod ending;
mod host;
pub mod outline;
pub mod record;
mod stage;
mod tales;
mod watch;
mod wire;
pub mod words;

use std::collections::VecDeque;

pub use ending::Ending;
pub use record::Record;
pub use stage::{Scene, Socket, Spectator, Stage, Told};
pub use wire::Fate;

use crate::kernel::{CubicAllowed, with_kernel};
use crate::target::{IpVersion, TargetError, World};
use host::Host;
use words::Text;

pub use tales::ALL;

/// One of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Who connects.
    Client = 0,
    /// Who listens.
    Server = 1,
}

impl Side {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// The other end.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// `client` or `server`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// A story.
#[derive(Debug)]
pub struct Story {
    /// Its name on the command line; for a finding `a.b` it is `a-b`.
    pub id: &'static str,
    /// One line.
    pub title: Text,
    /// Findings of `lastack doctor` it produces.
    pub rules: &'static [&'static str],
    /// Excerpts of the collection of complaints and articles that this project began with.
    pub excerpts: &'static [u8],
    /// What happens, a paragraph each.
    pub what: &'static [Text],
    /// The end whose behaviour is taught: on the target `kernel` it is Linux.
    pub taught: Side,
    /// Settings of the taught end that belong to the story.
    pub settings: &'static [(&'static str, &'static str)],
    /// Settings to try, and what they change.
    pub knobs: &'static [Knob],
    /// How Linux plays it.
    pub on_linux: OnLinux,
    /// The steps.
    pub play: fn(&mut Stage<'_>) -> Told<()>,
    /// How it ends, in full and in short.
    pub ending: Ending,
}

/// A setting to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Knob {
    /// Linux's name.
    pub name: &'static str,
    /// The value to try.
    pub value: &'static str,
    /// Whether anything becomes different at all; a myth's does not.
    pub changes: bool,
    /// What becomes different.
    pub effect: Text,
}

/// How Linux can play a story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnLinux {
    /// As it is: it ends within seconds.
    AsItIs,
    /// It would take minutes; with these settings (and shorter waits) it does not.
    Short(&'static [(&'static str, &'static str)]),
    /// Not at all, for this reason.
    Never(Text),
}

/// How a story is to be run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// In the short form that Linux can play within seconds.
    pub short: bool,
    /// Settings of the taught end.
    pub sysctls: Vec<(String, String)>,
}

/// The story called `id`.
pub fn by_id(id: &str) -> Option<&'static Story> {
    ALL.iter().copied().find(|story| story.id == id)
}

impl Story {
    /// The settings of the short form; none where it is the same.
    pub fn short_settings(&self) -> &'static [(&'static str, &'static str)] {
        match self.on_linux {
            OnLinux::Short(settings) => settings,
            OnLinux::AsItIs | OnLinux::Never(_) => &[],
        }
    }

    /// It has a short form.
    pub fn has_short_form(&self) -> bool {
        matches!(self.on_linux, OnLinux::Short(_))
    }

    /// Plays it between two stacks of ours, in virtual time.
    ///
    /// # Errors
    /// A setting is refused.
    pub fn on_stack(&self, options: &Options) -> Result<Record, TargetError> {
        self.perform(Stage::virtual_time(options.short && self.has_short_form()), options)
    }

    /// As [`Story::on_stack`], shown to `spectator` while it happens.
    ///
    /// # Errors
    /// A setting is refused.
    pub fn watched(&self, options: &Options, spectator: &mut Spectator<'_>) -> Result<Record, TargetError> {
        self.perform(Stage::virtual_time(options.short && self.has_short_form()).shown_to(spectator), options)
    }

    /// Plays it with Linux on the taught end, in real time.
    ///
    /// # Errors
    /// What is missing on this machine, with the permission that grants it; or the reason why Linux cannot.
    pub fn on_kernel(&self, options: &Options) -> Result<Record, TargetError> {
        if let OnLinux::Never(why) = self.on_linux {
            return Err(TargetError(why.en.to_owned()));
        }
        let _cubic = CubicAllowed::ensure()?;
        let world = World {
            ip: IpVersion::V4,
            local: self.taught.address(),
            remote: self.taught.other().address(),
            mtu: 1500,
            directory: std::path::PathBuf::new(),
        };
        let short = options.short && self.has_short_form();
        with_kernel(&world, |target| {
            let kernel = Host::Kernel(target, VecDeque::new());
            self.perform(Stage::with_kernel(kernel, self.taught, short), options)
        })?
    }

    fn perform(&self, mut stage: Stage<'_>, options: &Options) -> Result<Record, TargetError> {
        let short = if stage.is_short() { self.short_settings() } else { &[] };
        let fixed = self.settings.iter().chain(short).map(|(name, value)| (*name, *value));
        let asked = options.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.chain(asked) {
            stage.set(self.taught, name, value)?;
        }
        (self.play)(&mut stage)?;
        stage.finish()
    }
}

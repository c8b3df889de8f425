//! What the reader of a run should know about its limits, said on standard error behind the journal.
//!
//! Owns:    [`Warning`], its text in both languages.
//! Not here: what happened to a connection (`words`), why nothing was run (`failure`).

use std::path::PathBuf;

use lastack_observe::words::Lang;
use lastack_observe::words::{Words, says};

use super::observe::{MOST_ROOMS, Untold};

/// One thing that a journal, or a run, lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Warning {
    /// So many entries of the journal found its writer too slow.
    EntriesLost(u64),
    /// The capture could not be written to its end.
    CaptureEnds { path: PathBuf, error: String },
    /// The carrier's own system calls were not filtered.
    Unfiltered { error: String },
    /// So many packets found no room on a link that tells.
    LinkWasFull(u64),
    /// So many packets of the program were for a loopback address, by its link.
    Martians(u64),
    /// `/etc/resolv.conf` inside is the host's.
    HostsResolver,
    /// Ports and `tcp_tw_reuse` inside are as the kernel has them.
    KernelsPorts,
    /// `--observe`: so many short connections of this host may have been the program's.
    Unseen(u64),
    /// `--observe`: so many ended in a namespace of the program before it was looked at.
    Elsewhere(u64),
    /// `--observe`: so many namespaces of the program could not be looked at.
    Closed(u64),
    /// `--observe`: so many namespaces had to wait for a place.
    Crowded(u64),
}

impl Warning {
    /// What the journal of an observed program lacks.
    pub(crate) fn of_untold(untold: Untold) -> Vec<Self> {
        let Untold { unseen, elsewhere, closed, crowded } = untold;
        let (closed, crowded) = (closed as u64, crowded as u64);
        let all = [
            (unseen, Self::Unseen(unseen)),
            (elsewhere, Self::Elsewhere(elsewhere)),
            (closed, Self::Closed(closed)),
            (crowded, Self::Crowded(crowded)),
        ];
        all.into_iter().filter(|(count, _)| *count > 0).map(|(_, warning)| warning).collect()
    }

    /// Says it.
    pub(crate) fn say(&self, lang: Lang) {
        let words = self.words();
        match lang {
            Lang::En => say!("warning: {}", words.en),
            Lang::Zh => say!("警告：{}", words.zh),
        }
    }

    fn words(&self) -> Words {
        // One or many, as English has it.
        let of = |count: u64, one: &'static str, many: &'static str| if count == 1 { one } else { many };
        match self {
            Self::EntriesLost(count) => {
                let entries = of(*count, "journal entry was", "journal entries were");
                Words {
                    en: format!("{count} {entries} lost: the output was too slow"),
                    zh: format!("日志丢失 {count} 条：输出太慢"),
                }
            }
            Self::CaptureEnds { path, error } => {
                let path = path.display();
                says!("{path} ends before the program did: {error}", "{path} 在程序结束之前就中断了：{error}")
            }
            Self::Unfiltered { error } => says!(
                "lastack carried the program's bytes without a filter of its own system calls: this kernel refuses one ({error})",
                "lastack 转发程序数据时没有过滤自己的系统调用：本机内核拒绝这种过滤（{error}）"
            ),
            Self::LinkWasFull(count) => {
                let packets = of(*count, "packet of the program", "packets of the program");
                Words {
                    en: format!(
                        "{count} {packets} found no room in the link's buffer and had to be sent again: sudo sysctl net.core.rmem_max=8388608 makes it larger, a TUN (--device tun) has no such limit"
                    ),
                    zh: format!(
                        "程序有 {count} 个包因链路缓冲区已满而丢弃，只能重传：sudo sysctl net.core.rmem_max=8388608 可加大缓冲区；TUN（--device tun）没有这一限制"
                    ),
                }
            }
            Self::Martians(count) => {
                let packets = of(*count, "packet of the program was", "packets of the program were");
                Words {
                    en: format!(
                        "{count} {packets} for 127.0.0.0/8 or ::1 by its link, where nobody has such an address, and dropped: this host's loopback is 10.0.2.2 and fd00:6c61::2"
                    ),
                    zh: format!(
                        "程序有 {count} 个包经链路发往 127.0.0.0/8 或 ::1，链路上没有这样的地址，已丢弃：本机的回环地址是 10.0.2.2 和 fd00:6c61::2"
                    ),
                }
            }
            Self::HostsResolver => says!(
                "/etc/resolv.conf could not be replaced inside: names were looked up by the host's",
                "内侧的 /etc/resolv.conf 无法替换：域名由主机的那一份决定向谁查询"
            ),
            Self::KernelsPorts => says!(
                "port range and tcp_tw_reuse could not be set inside: /proc/sys is read-only here",
                "无法设置内侧的端口范围和 tcp_tw_reuse：这里的 /proc/sys 只读"
            ),
            Self::Unseen(count) => {
                let (were, they) = (
                    of(*count, "connection of this host was", "connections of this host were"),
                    of(*count, "it was", "they were"),
                );
                Words {
                    en: format!(
                        "{count} {were} too short to be looked at, and nothing tells whether {they} the program's: run as root, --observe sees every one of the program's"
                    ),
                    zh: format!(
                        "本机有 {count} 条连接太短，来不及查看，无从得知是不是程序的：以 root 运行时，--observe 能看到程序的每一条连接"
                    ),
                }
            }
            Self::Elsewhere(count) => {
                let connections = of(*count, "connection of the program", "connections of the program");
                let them = of(*count, "it", "them");
                Words {
                    en: format!(
                        "{count} {connections} ended in a network namespace of its own before that was looked at: the journal lacks {them}"
                    ),
                    zh: format!(
                        "程序有 {count} 条连接在它自己的网络命名空间里结束，当时还没来得及查看：日志里没有它们"
                    ),
                }
            }
            Self::Closed(count) => {
                let namespaces = of(*count, "network namespace", "network namespaces");
                Words {
                    en: format!(
                        "the program's processes were in {count} {namespaces} that could not be looked at: the journal lacks their connections; as root it has them"
                    ),
                    zh: format!(
                        "程序的进程处于 {count} 个无法查看的网络命名空间里：日志里没有它们的连接；以 root 运行则有"
                    ),
                }
            }
            Self::Crowded(count) => says!(
                "the program was in more than {MOST_ROOMS} network namespaces at a time: {count} of them had to wait until another was left, and the journal lacks what happened there till then",
                "程序同时处于超过 {MOST_ROOMS} 个网络命名空间：其中 {count} 个要等别的空出来，日志里没有它们在此之前发生的事"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_warning_is_in_both_languages_and_counts_one_as_one() {
        let error = || "No space left on device (os error 28)".to_owned();
        let counted: [fn(u64) -> Warning; 7] = [
            Warning::EntriesLost,
            Warning::LinkWasFull,
            Warning::Martians,
            Warning::Unseen,
            Warning::Elsewhere,
            Warning::Closed,
            Warning::Crowded,
        ];
        let plain = [
            Warning::CaptureEnds { path: "a.pcapng".into(), error: error() },
            Warning::Unfiltered { error: error() },
            Warning::HostsResolver,
            Warning::KernelsPorts,
        ];
        let all = counted.iter().flat_map(|of| [of(1), of(2)]).chain(plain);
        for warning in all {
            let Words { en, zh } = warning.words();
            assert!(en.is_ascii() && !en.contains("  "), "{en}");
            for one in [" 1 entries", " 1 packets", "1 connections", "1 network namespaces"] {
                assert!(!en.contains(one), "{en}");
            }
            assert!(zh.chars().any(|c| matches!(c, '\u{4e00}'..='\u{9fff}')), "{zh}");
        }
    }

    #[test]
    fn only_what_is_lacking_is_said() {
        let untold = Untold { unseen: 1, elsewhere: 0, closed: 2, crowded: 0 };
        assert_eq!(Warning::of_untold(untold), [Warning::Unseen(1), Warning::Closed(2)]);
        assert!(Warning::Unseen(1).words().en.starts_with("1 connection of this host was too short"));
    }
}

//! What a knob would change, before it is set: predictions from the model, with how sure they are.
//!
//! Input:   the snapshots, a knob's name and its new value.
//! Output:  [`Prediction`]s: a quantity now and then. It is inferred, as the kernel's rules have it, or only possible.
//! Rules:   `linux-tcp` 1.5, 2.4, 2.5, 3.2, 3.4, 3.5, 8.1, through [`super::model`].

use lastack_core::tcp::state::TcpState;

use super::model;
use crate::row::{Certainty, Row};
use crate::snapshot::{Namespace, Snapshot};
use crate::words::{Words, duration, says};

/// One quantity, before and after.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// What.
    pub what: Words,
    /// Now.
    pub now: String,
    /// After the change.
    pub then: String,
    /// How sure.
    pub certainty: Certainty,
}

/// Why no prediction can be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// No model for this knob.
    Knob,
    /// The value is not one the knob takes.
    Value,
}

/// The knobs there is a model for.
pub const KNOBS: &[&str] = &[
    "tcp_fin_timeout",
    "tcp_tw_reuse",
    "tcp_max_tw_buckets",
    "ip_local_port_range",
    "tcp_orphan_retries",
    "tcp_retries2",
    "tcp_rto_max_ms",
    "tcp_synack_retries",
    "tcp_syn_retries",
    "tcp_keepalive_time",
    "tcp_timewait_len",
];

/// Predicts the effect of `name` = `value` on the first namespace of `now`.
///
/// # Errors
/// [`Unknown`] when there is no model for the knob or the value is none.
pub fn predict(
    now: &Snapshot,
    before: Option<&Snapshot>,
    name: &str,
    value: &str,
) -> Result<Vec<Prediction>, Unknown> {
    let name = name.trim_start_matches("net.ipv4.");
    let Some(space) = now.namespaces.first() else { return Err(Unknown::Knob) };
    let view = View { now, before, space };
    // The kernel's own types: an int that may be negative, one that is not, and a byte.
    let int = || value.trim().parse::<i32>().map(i64::from).map_err(|_| Unknown::Value);
    let count = || value.trim().parse::<u32>().map_err(|_| Unknown::Value);
    let byte = || value.trim().parse::<u8>().map(u32::from).map_err(|_| Unknown::Value);
    Ok(match name {
        "tcp_fin_timeout" => view.fin_timeout(int()?),
        "tcp_tw_reuse" => view.tw_reuse(count().ok().filter(|v| *v <= 2).ok_or(Unknown::Value)?),
        "tcp_max_tw_buckets" => view.tw_buckets(count()?.into()),
        "ip_local_port_range" => view.port_range(value)?,
        "tcp_orphan_retries" => view.orphan_retries(byte()?),
        "tcp_retries2" => view.retries2(byte()?),
        "tcp_rto_max_ms" => {
            view.rto_max(count().ok().filter(|v| (1000..=120_000).contains(v)).ok_or(Unknown::Value)?.into())
        }
        "tcp_synack_retries" => view.synack_retries(byte()?),
        "tcp_syn_retries" => {
            view.syn_retries(count().ok().filter(|v| (1..=127).contains(v)).ok_or(Unknown::Value)?)
        }
        "tcp_keepalive_time" => view.keepalive_time(int()?),
        "tcp_timewait_len" => view.timewait_len(count()?),
        _ => return Err(Unknown::Knob),
    })
}

struct View<'a> {
    now: &'a Snapshot,
    before: Option<&'a Snapshot>,
    space: &'a Namespace,
}

impl View<'_> {
    fn knob(&self, name: &str, usual: u32) -> u32 {
        self.space.number(name).and_then(|value| value.try_into().ok()).unwrap_or(usual)
    }

    fn rto_max_ms(&self) -> u64 {
        self.knob("tcp_rto_max_ms", 120_000).into()
    }

    fn count(&self, pick: impl Fn(&Row) -> bool) -> u64 {
        self.now.rows.iter().filter(|row| row.netns == self.space.inode && pick(row)).count() as u64
    }

    fn time_waits(&self) -> u64 {
        self.count(|row| row.socket.state == TcpState::TimeWait)
    }

    fn unchanged(&self, what: Words, value: String) -> Prediction {
        Prediction { what, now: value.clone(), then: value, certainty: Certainty::Inferred }
    }

    fn fin_timeout(&self, seconds: i64) -> Vec<Prediction> {
        let was = i64::from(self.knob("tcp_fin_timeout", 60));
        let orphans = self.count(|row| row.socket.state == TcpState::FinWait2 && row.socket.orphan);
        let (life, new_life) = (model::orphan_fin_wait_2_ms(was), model::orphan_fin_wait_2_ms(seconds));
        let then = orphans.saturating_mul(new_life) / life.max(1);
        vec![
            Prediction {
                what: says!("life of an orphan in FIN-WAIT-2", "FIN-WAIT-2 孤儿的寿命"),
                now: duration(life),
                then: duration(new_life),
                certainty: Certainty::Inferred,
            },
            Prediction {
                what: says!(
                    "orphans in FIN-WAIT-2, at the same rate of closes",
                    "FIN-WAIT-2 孤儿数（关闭速率不变）"
                ),
                now: orphans.to_string(),
                then: then.to_string(),
                certainty: Certainty::Inferred,
            },
            self.unchanged(
                says!(
                    "sockets in TIME-WAIT (60 s each, a constant)",
                    "TIME-WAIT 套接字数（每个 60 秒，常量）"
                ),
                self.time_waits().to_string(),
            ),
            self.unchanged(
                says!("life of an orphan in FIN-WAIT-1", "FIN-WAIT-1 孤儿的寿命"),
                format!(
                    "{} / {}",
                    duration(model::orphan_silent_ms(self.knob("tcp_orphan_retries", 0), self.rto_max_ms())),
                    duration(model::orphan_zero_window_ms(self.rto_max_ms()))
                ),
            ),
        ]
    }

    fn ports(&self) -> u64 {
        match self.space.numbers("ip_local_port_range")[..] {
            [low, high] => u64::try_from(high.saturating_sub(low).saturating_add(1)).unwrap_or(0),
            _ => 28_232,
        }
    }

    fn tw_reuse(&self, value: u32) -> Vec<Prediction> {
        let was = self.knob("tcp_tw_reuse", 2);
        let timestamps = self.knob("tcp_timestamps", 1) != 0;
        let delay = u64::from(self.knob("tcp_tw_reuse_delay", 1000));
        let rate = |value: u32| {
            let ports = self.ports();
            // Outside the loopback, as 2 means the loopback only.
            if value == 1 && timestamps {
                ports.saturating_mul(1000) / delay.max(1)
            } else {
                model::sustainable_per_second(ports)
            }
        };
        vec![
            Prediction {
                what: says!(
                    "connections a second to one address and port that may close first here (not on the loopback)",
                    "到同一地址和端口、可由本端先关闭的每秒连接数（非环回）"
                ),
                now: rate(was).to_string(),
                then: rate(value).to_string(),
                certainty: Certainty::Inferred,
            },
            self.unchanged(
                says!("sockets in TIME-WAIT (reuse shortens none)", "TIME-WAIT 套接字数（复用不会缩短它）"),
                self.time_waits().to_string(),
            ),
            self.unchanged(says!("incoming connections", "传入连接"), "-".to_owned()),
        ]
    }

    /// TIME-WAITs that begin a second: counted between the snapshots, else from the present number.
    fn time_wait_rate(&self) -> u64 {
        let counted = self.before.and_then(|before| {
            let then = before.namespace(self.space.inode)?;
            let made = |space: &Namespace| space.counter("TW").saturating_add(space.counter("TWKilled"));
            let ms = self.now.taken_ns.saturating_sub(before.taken_ns) / 1_000_000;
            made(self.space).saturating_sub(made(then)).saturating_mul(1000).checked_div(ms)
        });
        counted.unwrap_or_else(|| self.time_waits() / 60)
    }

    fn tw_buckets(&self, limit: u64) -> Vec<Prediction> {
        let minis = self.space.timewait;
        let was = u64::from(self.knob("tcp_max_tw_buckets", 131_072));
        let rate = self.time_wait_rate();
        let steady = rate.saturating_mul(60).max(minis);
        let without = |limit: u64| (steady.saturating_sub(limit)) / 60;
        vec![
            Prediction {
                what: says!(
                    "mini sockets (TIME-WAIT and orphaned FIN-WAIT-2)",
                    "精简套接字（TIME-WAIT 与 FIN-WAIT-2 孤儿）"
                ),
                now: minis.to_string(),
                then: steady.min(limit).to_string(),
                certainty: Certainty::Inferred,
            },
            Prediction {
                what: says!(
                    "connections a second that end without TIME-WAIT",
                    "每秒未经 TIME-WAIT 就结束的连接数"
                ),
                now: without(was).to_string(),
                then: without(limit).to_string(),
                certainty: Certainty::Inferred,
            },
        ]
    }

    fn port_range(&self, value: &str) -> Result<Vec<Prediction>, Unknown> {
        let words: Vec<u16> = value
            .split([' ', '\t', '-', ','])
            .filter(|word| !word.is_empty())
            .map(|word| word.parse().map_err(|_| Unknown::Value))
            .collect::<Result<_, _>>()?;
        let [low, high] = words[..] else { return Err(Unknown::Value) };
        if low > high {
            return Err(Unknown::Value);
        }
        let ports = u64::from(high - low) + 1;
        let rate = model::sustainable_per_second;
        Ok(vec![
            Prediction {
                what: says!("local ports towards one address and port", "到同一地址和端口的本地端口数"),
                now: self.ports().to_string(),
                then: ports.to_string(),
                certainty: Certainty::Inferred,
            },
            Prediction {
                what: says!(
                    "connections a second that may close first here, without reuse",
                    "无复用时可由本端先关闭的每秒连接数"
                ),
                now: rate(self.ports()).to_string(),
                then: rate(ports).to_string(),
                certainty: Certainty::Inferred,
            },
        ])
    }

    fn orphan_retries(&self, value: u32) -> Vec<Prediction> {
        let was = self.knob("tcp_orphan_retries", 0);
        let silent = |value| duration(model::orphan_silent_ms(value, self.rto_max_ms()));
        vec![
            Prediction {
                what: says!(
                    "least life of an orphan in FIN-WAIT-1 or LAST-ACK whose peer is silent",
                    "对端沉默时 FIN-WAIT-1 或 LAST-ACK 孤儿的最短寿命"
                ),
                now: silent(was),
                then: silent(value),
                certainty: Certainty::Inferred,
            },
            self.unchanged(
                says!(
                    "life of an orphan in FIN-WAIT-1 behind a zero window whose peer answers probes",
                    "零窗口后、对端应答探测的 FIN-WAIT-1 孤儿的寿命"
                ),
                duration(model::orphan_zero_window_ms(self.rto_max_ms())),
            ),
        ]
    }

    fn retries2(&self, value: u32) -> Vec<Prediction> {
        let was = self.knob("tcp_retries2", 15);
        let life = |value| duration(model::retries2_ms(value, self.rto_max_ms()));
        vec![
            Prediction {
                what: says!(
                    "least time until unacknowledged data gives ETIMEDOUT, for a socket a program holds",
                    "程序持有的套接字，未确认数据到 ETIMEDOUT 的最短时间"
                ),
                now: life(was),
                then: life(value),
                certainty: Certainty::Inferred,
            },
            self.unchanged(
                says!(
                    "life of orphans (tcp_orphan_retries decides)",
                    "孤儿的寿命（由 tcp_orphan_retries 决定）"
                ),
                duration(model::orphan_silent_ms(self.knob("tcp_orphan_retries", 0), self.rto_max_ms())),
            ),
        ]
    }

    fn rto_max(&self, value: u64) -> Vec<Prediction> {
        let was = self.rto_max_ms();
        let retries2 = self.knob("tcp_retries2", 15);
        let both = |what, life: &dyn Fn(u64) -> u64| Prediction {
            what,
            now: duration(life(was)),
            then: duration(life(value)),
            certainty: Certainty::Inferred,
        };
        vec![
            both(
                says!(
                    "new sockets: least time until unacknowledged data gives ETIMEDOUT",
                    "新套接字：未确认数据到 ETIMEDOUT 的最短时间"
                ),
                &|max| model::retries2_ms(retries2, max),
            ),
            both(
                says!(
                    "new sockets: life of an orphan in FIN-WAIT-1 behind a zero window",
                    "新套接字：零窗口后 FIN-WAIT-1 孤儿的寿命"
                ),
                &model::orphan_zero_window_ms,
            ),
        ]
    }

    fn synack_retries(&self, value: u32) -> Vec<Prediction> {
        let was = self.knob("tcp_synack_retries", 5);
        let half_open = self.count(|row| row.socket.state == TcpState::NewSynRecv);
        let (life, new_life) = (model::syn_recv_ms(was), model::syn_recv_ms(value));
        vec![
            Prediction {
                what: says!("life of a half-open connection that is not finished", "未完成的半开连接的寿命"),
                now: duration(life),
                then: duration(new_life),
                certainty: Certainty::Inferred,
            },
            Prediction {
                what: says!("half-open connections, at the same rate of SYNs", "半开连接数（SYN 速率不变）"),
                now: half_open.to_string(),
                then: (half_open.saturating_mul(new_life) / life.max(1)).to_string(),
                certainty: Certainty::Possible,
            },
        ]
    }

    fn syn_retries(&self, value: u32) -> Vec<Prediction> {
        let linear = self.knob("tcp_syn_linear_timeouts", 0);
        let was = self.knob("tcp_syn_retries", 6);
        vec![Prediction {
            what: says!("time until connect to a silent address fails", "连接沉默地址直到失败的时间"),
            now: duration(model::syn_sent_ms(was, linear)),
            then: duration(model::syn_sent_ms(value, linear)),
            certainty: Certainty::Inferred,
        }]
    }

    fn keepalive_time(&self, seconds: i64) -> Vec<Prediction> {
        let (interval, probes) = (self.knob("tcp_keepalive_intvl", 75), self.knob("tcp_keepalive_probes", 9));
        let was = i64::from(self.knob("tcp_keepalive_time", 7200));
        let whole = |idle: i64| {
            let seconds = u64::try_from(idle).unwrap_or(0) + u64::from(interval) * u64::from(probes);
            duration(seconds.saturating_mul(1000))
        };
        let without =
            self.count(|row| row.socket.state == TcpState::Established && row.socket.timer.is_none());
        vec![
            Prediction {
                what: says!(
                    "time until a dead idle peer is noticed, by sockets with SO_KEEPALIVE and no time of their own",
                    "发现空闲死亡对端的时间（设了 SO_KEEPALIVE 且未单独设时间的套接字）"
                ),
                now: whole(was),
                then: whole(seconds),
                certainty: Certainty::Inferred,
            },
            self.unchanged(
                says!(
                    "established sockets without any keepalive: not touched",
                    "没有 keepalive 的已建立套接字：不受影响"
                ),
                without.to_string(),
            ),
        ]
    }

    fn timewait_len(&self, seconds: u32) -> Vec<Prediction> {
        let rate = self.time_wait_rate();
        vec![Prediction {
            what: says!(
                "sockets in TIME-WAIT, if it were a knob: Linux has none (lastack's own stack does)",
                "TIME-WAIT 套接字数（假如可调：Linux 没有此参数，lastack 自己的协议栈有）"
            ),
            now: self.time_waits().to_string(),
            then: rate.saturating_mul(seconds.into()).to_string(),
            certainty: Certainty::Inferred,
        }]
    }
}

#[cfg(test)]
mod tests;

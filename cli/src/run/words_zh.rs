//! Explanations in Chinese. 中文解释。

use std::net::IpAddr;

use lastack_gateway::inject::{Event, Injected};
use lastack_gateway::journal::{
    Certainty, ClosedBy, Connection, Direction, Flow, FlowEnd, FlowProtocol, How, Reason,
};
use lastack_gateway::limits::{Limit, Reached};

use lastack_core::error::errno::ENETUNREACH;

use super::words::{Explanation, bytes, only_the_cause_is_uncertain, time};

const DRAIN: &str = "关闭前先读到文件末尾，或者先 shutdown(SHUT_WR)，再一直读到对端关闭";
const DRAIN_IF_YOURS: &str = "如果服务器是你的：关闭前先读到文件末尾，或者先 shutdown(SHUT_WR) 再把数据读完";
const DRAIN_IF_YOUR_CLIENT: &str =
    "如果客户端是你的：关闭前先读到文件末尾，或者先 shutdown(SHUT_WR) 再把数据读完";

pub(super) fn explain(c: &Connection) -> Explanation {
    let program = c.owner.as_ref().map_or("程序", |owner| &*owner.process);
    let mut explanation = ending(c, program);
    if !only_the_cause_is_uncertain(c) {
        explanation.text.insert_str(0, known_by(c.verdict.certainty));
    }
    if let Some(injected) = c.injected {
        explanation.text = format!("{}{}", forced(injected, program), explanation.text);
    }
    if c.lost_up > 0 {
        let lost = bytes(c.lost_up);
        explanation.text += &format!("{program} 已发出并得到确认的数据中，有 {lost} 从未被远端内核确认。");
    }
    if c.lost_down > 0 {
        let lost = bytes(c.lost_down);
        explanation.text += &format!("远端发出的数据中，有 {lost} 从未被 {program} 的内核确认。");
    }
    explanation
}

/// 没有亲眼看到的说法，前面要注明。
const fn known_by(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Observed => "",
        Certainty::Inferred => "推断：",
        Certainty::Possible => "可能：",
    }
}

/// `--inject` 做了什么。
fn forced(injected: Injected, program: &str) -> String {
    let what = match injected.event {
        Event::Reset => format!("两端都收到 RST；{program} 看到 ECONNRESET。"),
        Event::Stall => format!("此后不再读写；在 {program} 看来对端冻结了。"),
        Event::ZeroWindow => format!("此后窗口为 0；{program} 的内核不能再发送，只能探测。"),
        Event::BlackHole => format!("它的包全部消失；{program} 的内核反复重传，直到放弃（ETIMEDOUT）。"),
        Event::HalfOpen => format!("连接被无声遗忘；{program} 的下一个包会得到 RST（ECONNRESET）。"),
    };
    let (at, carried) = (time(injected.at_us), bytes(injected.bytes));
    format!("在 {at}、{carried} 之后由 --inject {} 强制：{what}", injected.event.name())
}

fn ending(c: &Connection, program: &str) -> Explanation {
    let verdict = c.verdict;
    let to = c.host_remote.unwrap_or(c.remote);
    match (verdict.how, verdict.reason) {
        (How::Fin, _) => Explanation::new(
            match verdict.closed_by {
                ClosedBy::Program => {
                    format!(
                        "{program} 先关闭（FIN），远端随后关闭。TIME-WAIT 在 {program} 一侧的内核里，持续 60 秒。"
                    )
                }
                ClosedBy::Remote => format!("远端先关闭（FIN），{program} 随后关闭。TIME-WAIT 在远端一侧。"),
                _ => format!("{program} 和远端同时关闭：双方都在收到对方的 FIN 之前发出了自己的 FIN。"),
            },
            None,
        ),
        (How::Reset, reason) => reset(c, program, reason),
        (How::Refused, Some(Reason::ProgramGone)) => {
            Explanation::new(format!("连接还没建立，{program} 就已经不在了。"), None)
        }
        (How::Refused, Some(Reason::ConnectionLimit)) => Explanation::new(
            "打开的连接已达到 --max-connections 的上限：这条连接被拒绝。",
            Some("提高 --max-connections，或关闭空闲的连接：lastack ss --source NAME"),
        ),
        (How::Refused, Some(Reason::HostLimit)) => Explanation::new(
            "内侧没有空闲的源端口留给它：被拒绝。",
            Some("查看 lastack ss --source NAME：某个客户端有数万条连接"),
        ),
        (How::Refused, Some(Reason::ListensOnLoopback)) => Explanation::new(
            format!(
                "{program} 只监听它自己的回环地址（127.0.0.1 或 ::1），外面谁也到不了那里：{} 上没有监听者。客户端看到 ECONNRESET，因为主机已经接受了它的连接。",
                c.local
            ),
            Some("让它监听 0.0.0.0 或 10.0.2.100，IPv6 则为 [::] 或 [fd00:6c61::100]"),
        ),
        (How::Refused, _) if c.direction == Direction::In => Explanation::new(
            format!("内侧没有程序监听 {}。客户端看到 ECONNRESET，因为主机已经接受了它的连接。", c.local),
            Some("检查服务器是否在运行，等它开始监听再连接：lastack publish NAME 会说出谁在监听"),
        ),
        (How::Refused, _) => Explanation::new(
            format!("没有程序监听 {to}：SYN 得到的回答是 RST。{program} 看到 ECONNREFUSED。"),
            Some("检查服务器是否在运行、监听在哪个地址：ss -tln"),
        ),
        (How::Timeout, Some(Reason::KeepaliveTimeout)) => Explanation::new(
            "保活探测没有回应：对端无声无息地消失了。",
            Some("检查对端主机是否崩溃、网线是否断开、中间设备是否已忘记这条连接"),
        ),
        (How::Timeout, Some(Reason::RetriesExhausted)) => Explanation::new(
            "数据反复重传，始终没有得到确认：路径或对端已经不通。",
            Some("检查对端主机是否崩溃、防火墙是否丢包：发生时 ss -ti 能看到重传"),
        ),
        (How::Timeout, Some(Reason::Injected)) => Explanation::new("随后协议栈自己也放弃了。", None),
        (How::Killed, Some(Reason::Injected)) => Explanation::new("遗忘本身没有发出任何包。", None),
        (How::Timeout, Some(Reason::ProgramGone)) => Explanation::new(
            format!("发往 {to} 的 SYN 没有回应，{program} 不再等待。"),
            Some("可能是防火墙丢包，或地址写错：端口关闭的话会立刻有回应"),
        ),
        (How::Timeout, _) if c.direction == Direction::In => Explanation::new(
            format!(
                "{program} 的内核没有回应发往 {} 的 SYN：等待 accept 的连接队列已满，或者链路把它丢了。",
                c.local
            ),
            Some("更快地 accept，或用更大的 backlog 监听：ss -ltn 显示该队列（Recv-Q、Send-Q）"),
        ),
        (How::Timeout, _) => Explanation::new(
            format!("发往 {to} 的 SYN 没有回应。{program} 的内核放弃时，它会看到 ETIMEDOUT。"),
            Some("可能是防火墙丢包，或地址写错：端口关闭的话会立刻有回应"),
        ),
        (How::Unreachable, Some(Reason::Prohibited)) => Explanation::new(
            format!("本机的路由或防火墙规则禁止访问 {to}。"),
            Some("在本机查看 `ip rule`、`ip route get 地址` 和防火墙"),
        ),
        (How::Unreachable, _) if c.host_errno == Some(ENETUNREACH) => Explanation::new(
            format!("本机没有到 {to} 的路由。{program} 看到 ENETUNREACH。"),
            Some("在本机查看 `ip route get 地址`；没有 IPv6 路由很常见，随后会用 IPv4 的话并无妨碍"),
        ),
        (How::Unreachable, _) => Explanation::new(
            format!("主机 {to} 无法到达。{program} 看到 EHOSTUNREACH。"),
            Some("在本机查看 `ip route get 地址` 和 `ip neigh`"),
        ),
        (How::Denied, Some(Reason::LoopbackClosed)) => Explanation::new(
            format!("--no-host-loopback：程序不能访问主机的回环地址。{program} 看到 ECONNREFUSED。"),
            Some("去掉 --no-host-loopback，或让服务器监听网络上的地址"),
        ),
        (How::Denied, Some(Reason::MartianDestination)) => Explanation::new(
            format!(
                "链路上的包不能发往 {}：它指的是主机自身内部，或者所有主机。SYN 被丢弃，与 Linux 一致；{program} 得不到任何回应。",
                c.remote
            ),
            Some("10.0.2.2 和 fd00:6c61::2 是本机的回环地址，能否访问由规则决定"),
        ),
        (How::Denied, _) => Explanation::new(
            format!("规则禁止访问 {}。{program} 看到 ECONNREFUSED；没有任何数据离开本机。", c.remote),
            Some("如果应当允许，请在拒绝它的规则之前加上 --allow"),
        ),
        (How::Killed, _) => {
            Explanation::new(format!("由命令结束（lastack kill）。{program} 看到 ECONNRESET。"), None)
        }
        (How::Open, _) => Explanation::new("运行结束时连接仍然打开。", None),
    }
}

fn reset(c: &Connection, program: &str, reason: Option<Reason>) -> Explanation {
    let by_program = c.verdict.ended_by == ClosedBy::Program;
    let who = if by_program { program } else { "远端" };
    let drain = match (by_program, c.direction) {
        (true, _) => DRAIN,
        (false, Direction::Out) => DRAIN_IF_YOURS,
        (false, Direction::In) => DRAIN_IF_YOUR_CLIENT,
    };
    // 重置是看到的；原因未必。
    let because = match c.verdict.certainty {
        Certainty::Observed => "：".to_owned(),
        less => format!("。{}", known_by(less)),
    };
    match reason {
        Some(Reason::ClosedWithUnreadData) => Explanation::new(
            format!(
                "被 {who} 重置{because}它关闭时还有数据没读，所以内核发出的是 RST 而不是 FIN（RFC 2525 2.17）。"
            ),
            Some(drain),
        ),
        Some(Reason::LingerZero) => Explanation::new(
            format!("被 {who} 重置{because}它以 SO_LINGER 0 秒关闭，这会发出 RST 并丢弃尚未发送的数据。"),
            Some("除非有意丢弃数据，否则不要设置 SO_LINGER；TIME-WAIT 不是设置它的理由"),
        ),
        Some(Reason::DataAfterClose) => Explanation::new(
            format!("被 {who} 重置{because}数据到达时它已经关闭，所以内核回答了 RST。"),
            Some("等对端把话说完再关闭：协议必须说明谁最后发言"),
        ),
        Some(Reason::Injected) => Explanation::new("被 lastack 重置。", None),
        Some(Reason::IdleTimeout) => Explanation::new(
            format!(
                "被 lastack 重置{because}双向都没有任何字节传送，已达到 --tcp-idle 允许的时间。两端都看到 ECONNRESET。"
            ),
            Some("加大 --tcp-idle，或让协议不时发送一些数据（保活探测不携带数据）"),
        ),
        Some(Reason::HostLimit) => Explanation::new(
            "被 lastack 重置：本机没有可用的端口、描述符或内存了。",
            Some("查看 `ulimit -n`、`ss -s` 和本机的 ip_local_port_range"),
        ),
        _ if by_program => Explanation::new(
            format!(
                "被 {who} 重置。内核计数器说不出原因。可能：它关闭时有数据没读，或设置了 SO_LINGER 0，或被杀死时还有数据没读。"
            ),
            Some(drain),
        ),
        _ => Explanation::new(
            format!(
                "被 {who} 重置。可能：它关闭时还有数据没读，内核因此发出 RST 而不是 FIN（RFC 2525 2.17）；或者它设置了 SO_LINGER 0；或者它已经不在了。{program} 看到 ECONNRESET。"
            ),
            Some(drain),
        ),
    }
}

pub(super) fn explain_flow(flow: &Flow) -> String {
    if flow.direction == Direction::In {
        return explain_flow_in(flow);
    }
    let to = flow.host_remote.unwrap_or(flow.remote);
    if flow.protocol == FlowProtocol::Icmp {
        return explain_pings(flow, to.ip());
    }
    match flow.how {
        FlowEnd::Idle if flow.datagrams_down == 0 => format!("{to} 没有任何回应。"),
        FlowEnd::Idle => "双方收发数据报，直到没人再发。".to_owned(),
        FlowEnd::Refused => format!("没有程序监听 {to}：收到 ICMP 端口不可达。"),
        FlowEnd::Unreachable => format!("本机无法向 {to} 发送。"),
        FlowEnd::Denied => format!("规则禁止访问 {}。", flow.remote),
        FlowEnd::LoopbackClosed => {
            "--no-host-loopback：程序不能访问主机的回环地址；收到 ICMP 端口不可达。".to_owned()
        }
        FlowEnd::MartianDestination => martian(flow),
        FlowEnd::NotPermitted => format!("本机不允许其用户向 {to} 发送。"),
    }
}

fn martian(flow: &Flow) -> String {
    format!("链路上的包不能发往 {}：已被无声丢弃，与 Linux 一致。", flow.remote.ip())
}

fn explain_pings(flow: &Flow, to: IpAddr) -> String {
    let (sent, answered) = (flow.datagrams_up, flow.datagrams_down);
    match flow.how {
        FlowEnd::Idle => format!("{sent} 次 ping，{to} 回答了 {answered} 次。"),
        FlowEnd::Refused | FlowEnd::Unreachable => {
            format!("本机无法到达 {to}；{sent} 次 ping 有 {answered} 次得到回答。")
        }
        FlowEnd::Denied | FlowEnd::LoopbackClosed => format!("规则禁止 {to}。"),
        FlowEnd::MartianDestination => martian(flow),
        FlowEnd::NotPermitted => "本机不允许其用户 ping：所在组不在 net.ipv4.ping_group_range 之内（sudo sysctl net.ipv4.ping_group_range='0 2147483647'）。".to_owned(),
    }
}

/// 由已发布端口的客户端发起的流。
fn explain_flow_in(flow: &Flow) -> String {
    let (local, client) = (flow.local, flow.host_remote.unwrap_or(flow.remote));
    match flow.how {
        FlowEnd::Refused if flow.datagrams_up == 0 => {
            format!("内侧没有套接字占用 {local}/udp，也没有任何回答。")
        }
        FlowEnd::Idle if flow.datagrams_up == 0 => format!("{local}/udp 没有任何回答。"),
        FlowEnd::Idle => "双方收发数据报，直到没人再发。".to_owned(),
        FlowEnd::Refused => format!("客户端端口 {client} 已关闭：收到 ICMP 端口不可达。"),
        FlowEnd::Unreachable => format!("本机无法向客户端 {client} 发送。"),
        FlowEnd::Denied | FlowEnd::LoopbackClosed | FlowEnd::MartianDestination => {
            format!("规则禁止 {client}。")
        }
        FlowEnd::NotPermitted => format!("本机不允许其用户向客户端 {client} 发送。"),
    }
}

pub(super) fn explain_limit(reached: &Reached) -> String {
    let count = reached.turned_away;
    match reached.limit {
        Limit::Connections => format!("--max-connections：拒绝了 {count} 条连接。"),
        Limit::PendingConnections => {
            format!("数千个 SYN 在等本机的回答，丢弃了 {count} 个；它们会重发。")
        }
        Limit::Flows => format!("--max-flows：丢弃了 {count} 个本会新建 UDP 流的数据报。"),
        Limit::FlowQueue => format!("丢弃了 {count} 个数据报：程序发送得比本机接收得快。"),
        Limit::Lookups => format!("上千个域名查询在等回答，丢弃了 {count} 个。"),
        Limit::Pings => format!("许多 ping 在等回答，丢弃了 {count} 个。"),
    }
}

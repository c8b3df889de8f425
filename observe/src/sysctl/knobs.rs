//! Every knob, one item each, in the order of their names. Facts: `linux-tcp` 8.1 and the sections it cites.

use lastack_core::tcp::state::TcpState::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, NewSynRecv, SynSent,
    TimeWait,
};

use super::{Knob, NO_MYTH, in_state, knob, of_host, touching};
use crate::words::text;

/// Every knob.
pub const ALL: &[Knob] = &[
    of_host(knob(
        "core.busy_poll",
        "0",
        "microseconds",
        text(
            "how long poll() and select() look at the device's queue before they sleep; on a stack, how long its driver looks for the next packet, and only where small packets come one after the other within that time (lastack run: 200, on one processor 0)",
            "poll() 与 select() 在睡眠前查看设备队列多久；对 lastack 的栈，是其驱动在睡眠前等下一个包多久，且只在小包于此时间内接连而来时才如此（lastack run：200，单处理器时为 0）",
        ),
        text(
            "it does not make a busy host faster: it spends processor time to save a wake-up for each message of a conversation",
            "它不会让繁忙的主机更快：它用处理器时间换取会话中每条消息少一次唤醒",
        ),
    )),
    knob(
        "core.somaxconn",
        "4096",
        "sockets",
        text(
            "cap of every listen() backlog, taken at the time of the call; the backlog is the length of both the SYN queue and the accept queue",
            "每次 listen() 的 backlog 上限，在调用时取值；backlog 同时是 SYN 队列和 accept 队列的长度",
        ),
        text(
            "raising it does not reach running programs: they must call listen() again, with a larger number",
            "调高它不影响正在运行的程序：它们必须以更大的数重新调用 listen()",
        ),
    ),
    knob(
        "ip_local_port_range",
        "32768 60999",
        "two ports",
        text(
            "local ports that connect() and bind(0) choose from: 28,232 by default, shared among different destinations",
            "connect() 与 bind(0) 选用的本地端口范围：默认 28232 个，不同目的地可共用",
        ),
        text(
            "it is not a limit of connections: only of those to one address and port (470 a second, when this side closes first)",
            "它不是连接数上限：只限制到同一地址和端口的连接（本端先关闭时每秒 470 个）",
        ),
    ),
    touching(
        knob(
            "tcp_abort_on_overflow",
            "0",
            "0 or 1",
            text(
                "1: a final ACK that finds the accept queue full is answered by RST; 0: it is dropped and the client may try again",
                "1：最后的 ACK 遇到 accept 队列满时以 RST 应答；0：丢弃，客户端可重试",
            ),
            text(
                "it does not cure overflow, it makes short bursts into errors at the clients; SYNs are dropped either way",
                "它不能治愈溢出，只是把短暂突发变成客户端错误；SYN 无论如何都被丢弃",
            ),
        ),
        |row| in_state(row, Listen),
    ),
    knob(
        "tcp_adv_win_scale",
        "1",
        "-31 to 31",
        text(
            "without effect since Linux 6.6: the share of the buffer offered as window is measured",
            "自 Linux 6.6 起无效：用作窗口的缓冲比例改为实测",
        ),
        text("tuning it does nothing", "调整它没有任何作用"),
    ),
    knob(
        "tcp_allowed_congestion_control",
        "reno and the default",
        "names",
        text(
            "congestion controls that programs without CAP_NET_ADMIN, and other namespaces, may choose",
            "没有 CAP_NET_ADMIN 的程序以及其他命名空间可选用的拥塞控制",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_app_win",
        "31",
        "0 to 31, a shift",
        text(
            "part of the window kept for the application's buffering; 31 keeps none",
            "为应用缓冲保留的窗口部分；31 表示不保留",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_autocorking",
        "1",
        "0 or 1",
        text(
            "small writes wait while an earlier packet of the same socket is still in the device's queue",
            "同一套接字的前一个包还在设备队列时，小写入会等待合并",
        ),
        text("it is not TCP_CORK and adds no timer", "它不是 TCP_CORK，也不增加定时器"),
    ),
    knob(
        "tcp_available_congestion_control",
        "",
        "read only",
        text("congestion controls that are loaded", "已加载的拥塞控制算法"),
        NO_MYTH,
    ),
    knob(
        "tcp_available_ulp",
        "",
        "read only",
        text(
            "protocols that may sit on top of TCP in the kernel (tls, mptcp)",
            "内核中可叠加在 TCP 之上的协议（tls、mptcp）",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_backlog_ack_defer",
        "1",
        "0 or 1",
        text(
            "segments that arrived while a program was inside a call are acknowledged once, at its end",
            "程序在系统调用中时到达的报文在调用结束时统一确认",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_base_mss",
        "1024",
        "bytes",
        text("segment size from which path MTU probing starts", "路径 MTU 探测的起始报文大小"),
        text("used only with tcp_mtu_probing", "仅在 tcp_mtu_probing 开启时使用"),
    ),
    knob(
        "tcp_challenge_ack_limit",
        "2147483647",
        "ACKs a second",
        text(
            "limit of challenge ACKs of the whole namespace (RFC 5961); the largest number switches it off",
            "整个命名空间的 challenge ACK 上限（RFC 5961）；最大值表示关闭",
        ),
        text(
            "the small limits of old guides were a side channel (CVE-2016-5696)",
            "旧指南里的小上限曾是旁路信道（CVE-2016-5696）",
        ),
    ),
    knob(
        "tcp_child_ehash_entries",
        "0",
        "buckets, 0 to 16M",
        text(
            "size of a table of connections of its own for child namespaces; 0 shares the host's",
            "子命名空间独立连接表的大小；0 表示共用主机的表",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_comp_sack_delay_ns",
        "1000000",
        "nanoseconds",
        text("longest time for which SACKs are collected before one is sent", "合并 SACK 的最长时间"),
        NO_MYTH,
    ),
    knob(
        "tcp_comp_sack_nr",
        "44",
        "SACKs, 0 to 255",
        text("how many SACKs may be collected; 0 switches it off", "最多合并多少个 SACK；0 关闭"),
        NO_MYTH,
    ),
    knob(
        "tcp_comp_sack_slack_ns",
        "100000",
        "nanoseconds",
        text("by how much that timer may be late", "该定时器允许的迟滞"),
        NO_MYTH,
    ),
    knob(
        "tcp_congestion_control",
        "cubic (or the build's)",
        "a name",
        text(
            "congestion control of new sockets; accepted ones take their listener's",
            "新套接字的拥塞控制；accept 出来的继承监听套接字的",
        ),
        text(
            "changing it leaves existing connections, and listeners already open, as they are",
            "修改它不影响现有连接，也不影响已打开的监听套接字",
        ),
    ),
    knob(
        "tcp_dsack",
        "1",
        "0 or 1",
        text("tell the peer of segments that came twice", "告知对端重复收到的报文"),
        NO_MYTH,
    ),
    knob(
        "tcp_early_demux",
        "1",
        "0 or 1",
        text("find the socket before the route, to save a lookup", "先查套接字再查路由，以省一次查找"),
        NO_MYTH,
    ),
    knob(
        "tcp_early_retrans",
        "3",
        "0 to 4",
        text("3 or 4: tail loss probes; else none", "3 或 4：启用尾部丢失探测；其他值关闭"),
        text(
            "\"early retransmit\" (RFC 5827) does not exist any more",
            "“early retransmit”（RFC 5827）已不存在",
        ),
    ),
    knob(
        "tcp_ecn",
        "2",
        "0 to 2",
        text(
            "1: ask for explicit congestion notification; 2: agree when asked; 0: never",
            "1：主动请求显式拥塞通知；2：对端请求时同意；0：从不",
        ),
        text("the default 2 does not ask for it", "默认值 2 并不会主动请求"),
    ),
    knob(
        "tcp_ecn_fallback",
        "1",
        "0 or 1",
        text("repeat a SYN without ECN when the first is not answered", "首个 SYN 无应答时改为不带 ECN 重发"),
        NO_MYTH,
    ),
    knob(
        "tcp_ecn_option",
        "2",
        "0 to 2",
        text("when the accurate-ECN option is sent", "何时发送精确 ECN 选项"),
        text("without effect while accurate ECN cannot be negotiated", "无法协商精确 ECN 时不起作用"),
    ),
    knob(
        "tcp_ecn_option_beacon",
        "3",
        "0 to 3",
        text("how often a round trip the accurate-ECN option is sent", "每个往返发送精确 ECN 选项的次数"),
        text("without effect while accurate ECN cannot be negotiated", "无法协商精确 ECN 时不起作用"),
    ),
    knob(
        "tcp_ehash_entries",
        "",
        "read only",
        text(
            "buckets of the table of connections; negative when the namespace has its own",
            "连接哈希表的桶数；命名空间独有时为负数",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_fack",
        "0",
        "0 or 1",
        text("without effect", "无效"),
        text("RACK took its place", "已被 RACK 取代"),
    ),
    knob(
        "tcp_fastopen",
        "1",
        "a sum of bits",
        text(
            "1: client, 2: server, 4: client without cookie, 0x200: server accepts without cookie, 0x400: every listener",
            "1：客户端，2：服务端，4：客户端无需 cookie，0x200：服务端无需 cookie，0x400：所有监听套接字",
        ),
        text("the default 1 does not switch the server's side on", "默认值 1 不会启用服务端"),
    ),
    knob(
        "tcp_fastopen_blackhole_timeout_sec",
        "0",
        "seconds",
        text(
            "for how long the client gives Fast Open up after a path swallowed it; 0: it never looks",
            "路径吞掉 Fast Open 后客户端停用多久；0 表示不检测",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_fastopen_key",
        "random",
        "one or two keys",
        text("secret of the Fast Open cookies; never shown here", "Fast Open cookie 的密钥；此处从不显示"),
        NO_MYTH,
    ),
    touching(
        knob(
            "tcp_fin_timeout",
            "60",
            "seconds",
            text(
                "life of an orphan in FIN-WAIT-2, and of nothing else: our FIN is acknowledged, the program has gone, the peer's FIN has not come. Above 60 the life is 2 × (value - 60): 61 gives 2 s, 90 gives 60 s, 120 gives 120 s",
                "FIN-WAIT-2 孤儿的寿命，仅此而已：我们的 FIN 已被确认，程序已离开，对端的 FIN 未到。超过 60 时寿命为 2 ×（值 - 60）：61 为 2 秒，90 为 60 秒，120 为 120 秒",
            ),
            text(
                "it does not shorten TIME-WAIT (a constant of 60 s), FIN-WAIT-1, or a FIN-WAIT-2 that a program still holds; and an expired one does not enter TIME-WAIT, it vanishes",
                "它不会缩短 TIME-WAIT（常量 60 秒）、FIN-WAIT-1，也不影响仍被程序持有的 FIN-WAIT-2；到期后不进入 TIME-WAIT，而是直接消失",
            ),
        ),
        |row| in_state(row, FinWait2) && row.socket.orphan,
    ),
    knob(
        "tcp_frto",
        "2",
        "0 to 255",
        text("not 0: detect time-outs that were needless (F-RTO)", "非 0：检测不必要的超时（F-RTO）"),
        text("1 and 2 are the same", "1 与 2 相同"),
    ),
    knob(
        "tcp_fwmark_accept",
        "0",
        "0 or 1",
        text("an accepted socket takes the mark of its SYN", "accept 的套接字继承其 SYN 的标记"),
        NO_MYTH,
    ),
    knob(
        "tcp_invalid_ratelimit",
        "500",
        "milliseconds",
        text(
            "least pause between two ACKs that answer segments out of the window, of one socket; 0 has no limit",
            "同一套接字对窗口外报文应答 ACK 的最小间隔；0 不限制",
        ),
        text(
            "it also slows answers to keepalives and challenge ACKs",
            "它也会限制对保活的应答和 challenge ACK",
        ),
    ),
    touching(
        knob(
            "tcp_keepalive_intvl",
            "75",
            "seconds",
            text("pause between keepalive probes that are not answered", "未应答的保活探测之间的间隔"),
            NO_MYTH,
        ),
        |row| in_state(row, Established) && row.socket.timer.is_some_and(|t| t.kind.name() == "keepalive"),
    ),
    touching(
        knob(
            "tcp_keepalive_probes",
            "9",
            "probes, 0 to 255",
            text(
                "unanswered probes after which the connection is reset with ETIMEDOUT",
                "多少次探测无应答后以 ETIMEDOUT 重置连接",
            ),
            text("TCP_USER_TIMEOUT, where set, decides instead", "若设置了 TCP_USER_TIMEOUT，则由它决定"),
        ),
        |row| in_state(row, Established) && row.socket.timer.is_some_and(|t| t.kind.name() == "keepalive"),
    ),
    touching(
        knob(
            "tcp_keepalive_time",
            "7200",
            "seconds",
            text(
                "idle time after which a socket that asked for keepalives (SO_KEEPALIVE) sends the first",
                "设置了 SO_KEEPALIVE 的套接字空闲多久后发送首个保活探测",
            ),
            text(
                "nothing happens for sockets without SO_KEEPALIVE; and none is sent while data is unacknowledged",
                "没有 SO_KEEPALIVE 的套接字毫无变化；有未确认数据时也不会发送",
            ),
        ),
        |row| in_state(row, Established) && row.socket.timer.is_some_and(|t| t.kind.name() == "keepalive"),
    ),
    knob(
        "tcp_l3mdev_accept",
        "0",
        "0 or 1",
        text(
            "an accepted socket belongs to the VRF its SYN came from",
            "accept 的套接字归属其 SYN 所在的 VRF",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_limit_output_bytes",
        "4194304",
        "bytes",
        text("what one socket may have in the device's queue", "单个套接字在设备队列中的字节上限"),
        text("it is no limit of bandwidth", "它不是带宽限制"),
    ),
    knob(
        "tcp_low_latency",
        "0",
        "0 or 1",
        text("without effect since Linux 4.14", "自 Linux 4.14 起无效"),
        text("it makes nothing faster", "它不会让任何东西更快"),
    ),
    touching(
        of_host(knob(
            "tcp_max_orphans",
            "",
            "sockets",
            text(
                "orphans of the whole host above which the kernel resets them; a stalled one counts double or fourfold",
                "整台主机孤儿超过此数时内核开始重置；停滞的按两倍或四倍计",
            ),
            text(
                "neither TIME-WAIT nor FIN-WAIT-2 records count; lowering it resets innocent connections",
                "TIME-WAIT 与 FIN-WAIT-2 记录不计入；调低它会重置无辜的连接",
            ),
        )),
        |row| row.socket.orphan && row.uid.is_some(),
    ),
    knob(
        "tcp_max_reordering",
        "300",
        "segments",
        text("cap of the reordering that is tolerated", "容忍乱序程度的上限"),
        NO_MYTH,
    ),
    touching(
        knob(
            "tcp_max_syn_backlog",
            "",
            "half-open connections",
            text(
                "with tcp_syncookies = 0 only: the last quarter is kept for known peers",
                "仅当 tcp_syncookies = 0：最后四分之一留给已知对端",
            ),
            text(
                "it is not the length of the SYN queue: that is the listener's backlog",
                "它不是 SYN 队列的长度：那是监听套接字的 backlog",
            ),
        ),
        |row| in_state(row, NewSynRecv),
    ),
    touching(
        knob(
            "tcp_max_tw_buckets",
            "",
            "mini sockets",
            text(
                "mini sockets (TIME-WAIT, orphaned FIN-WAIT-2) of the namespace; beyond, connections end without one",
                "命名空间中精简套接字（TIME-WAIT、FIN-WAIT-2 孤儿）的上限；超出后连接直接结束",
            ),
            text(
                "lowering it cures nothing: it takes the protection away, and late FINs are answered by RST",
                "调低它什么也治不好：只是去掉保护，迟到的 FIN 会得到 RST",
            ),
        ),
        |row| in_state(row, TimeWait) || in_state(row, FinWait2) && row.socket.orphan,
    ),
    of_host(knob(
        "tcp_mem",
        "",
        "three numbers of pages",
        text(
            "memory of all TCP of the host: below the first no care, from the second pressure, at the third drops",
            "整台主机 TCP 内存：低于第一个数不干预，超过第二个进入压力，达到第三个开始丢弃",
        ),
        text("the numbers are pages (4096 bytes here), not bytes", "单位是页（通常 4096 字节），不是字节"),
    )),
    knob(
        "tcp_migrate_req",
        "0",
        "0 or 1",
        text(
            "when a listener closes, its waiting connections move to another one of the SO_REUSEPORT group",
            "监听套接字关闭时，等待的连接迁移到同一 SO_REUSEPORT 组的另一个",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_min_rtt_wlen",
        "300",
        "seconds, 0 to 86400",
        text("over how long the smallest round trip is remembered", "最小往返时间的记忆窗口"),
        NO_MYTH,
    ),
    knob(
        "tcp_min_snd_mss",
        "48",
        "bytes, 48 to 65535",
        text("smallest segment size a peer may ask for", "对端可要求的最小报文长度"),
        NO_MYTH,
    ),
    knob(
        "tcp_min_tso_segs",
        "2",
        "segments",
        text("smallest burst handed to the device at once", "一次交给设备的最小报文数"),
        NO_MYTH,
    ),
    knob(
        "tcp_moderate_rcvbuf",
        "1",
        "0 or 1",
        text("the receive buffer grows with what the program reads", "接收缓冲随程序读取速度增长"),
        text(
            "a socket with SO_RCVBUF set does not grow in any case",
            "设置了 SO_RCVBUF 的套接字无论如何都不会增长",
        ),
    ),
    knob(
        "tcp_mtu_probe_floor",
        "48",
        "bytes",
        text("smallest size path MTU probing goes down to", "路径 MTU 探测的下限"),
        NO_MYTH,
    ),
    knob(
        "tcp_mtu_probing",
        "0",
        "0 to 2",
        text(
            "1: probe the path MTU after a black hole was suspected; 2: always",
            "1：怀疑黑洞后探测路径 MTU；2：总是探测",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_no_metrics_save",
        "0",
        "0 or 1",
        text(
            "1: do not remember round trip and threshold of a destination",
            "1：不记住目的地的往返时间与阈值",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_no_ssthresh_metrics_save",
        "1",
        "0 or 1",
        text("1: of these, do not remember the slow-start threshold", "1：其中不记住慢启动阈值"),
        NO_MYTH,
    ),
    touching(
        knob(
            "tcp_notsent_lowat",
            "4294967295",
            "bytes",
            text(
                "a socket is writable only while less than this is queued and unsent",
                "只有排队未发送的数据少于此值时套接字才可写",
            ),
            text(
                "it is no limit of the send buffer, only of when the program is woken",
                "它不是发送缓冲的上限，只决定何时唤醒程序",
            ),
        ),
        |row| row.socket.info.as_ref().is_some_and(|info| info.notsent_bytes > 0),
    ),
    touching(
        knob(
            "tcp_orphan_retries",
            "0",
            "an exponent, 0 to 255",
            text(
                "for how long an orphan repeats to a silent peer: 0 means 8 (about 105 s), 3 gives 7 s, 1 gives 1.7 s",
                "孤儿对沉默对端重传多久：0 表示 8（约 105 秒），3 约 7 秒，1 约 1.7 秒",
            ),
            text(
                "it does not bound a FIN-WAIT-1 behind a zero window whose peer answers the probes (about 330 s, whatever the value)",
                "它不限制零窗口后、对端会应答探测的 FIN-WAIT-1（约 330 秒，与此值无关）",
            ),
        ),
        |row| row.socket.orphan && matches!(row.socket.state, FinWait1 | LastAck | Closing),
    ),
    knob(
        "tcp_pacing_ca_ratio",
        "120",
        "per cent, 0 to 1000",
        text(
            "pacing rate during congestion avoidance, of cwnd over round trip",
            "拥塞避免阶段的发送节奏（相对 cwnd/RTT）",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_pacing_ss_ratio",
        "200",
        "per cent, 0 to 1000",
        text("the same during slow start", "慢启动阶段的发送节奏"),
        NO_MYTH,
    ),
    knob(
        "tcp_pingpong_thresh",
        "1",
        "replies",
        text(
            "replies in a row after which ACKs wait for data to ride on",
            "连续多少次应答后 ACK 开始等待捎带",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_plb_cong_thresh",
        "128",
        "of 256",
        text(
            "protective load balancing: share of marked packets that counts as congested",
            "保护性负载均衡：标记比例达到多少视为拥塞",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_plb_enabled",
        "0",
        "0 or 1",
        text(
            "change the flow label of congested flows, so that they take another path (IPv6, with an ECN congestion control)",
            "改变拥塞流的流标签以换路径（IPv6，配合 ECN 拥塞控制）",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_plb_idle_rehash_rounds",
        "3",
        "rounds",
        text("congested rounds before an idle flow is moved", "空闲流迁移前的拥塞轮数"),
        NO_MYTH,
    ),
    knob(
        "tcp_plb_rehash_rounds",
        "12",
        "rounds",
        text("congested rounds before any flow is moved", "任何流迁移前的拥塞轮数"),
        NO_MYTH,
    ),
    knob(
        "tcp_plb_suspend_rto_sec",
        "60",
        "seconds",
        text("pause after a time-out before flows are moved again", "超时后多久才再次迁移"),
        NO_MYTH,
    ),
    knob(
        "tcp_probe_interval",
        "600",
        "seconds",
        text("pause between path MTU probes upwards", "向上探测路径 MTU 的间隔"),
        NO_MYTH,
    ),
    knob(
        "tcp_probe_threshold",
        "8",
        "bytes",
        text("path MTU probing ends when the range is this small", "探测区间缩小到此值即停止"),
        NO_MYTH,
    ),
    knob(
        "tcp_recovery",
        "1",
        "a sum of bits",
        text(
            "1: RACK, 2: its window does not adapt, 4: no threshold of duplicate ACKs",
            "1：RACK，2：窗口不自适应，4：不用重复 ACK 阈值",
        ),
        text(
            "clearing bit 1 has no effect on flows with SACK since about Linux 6.17",
            "约自 Linux 6.17 起，清除位 1 对 SACK 流无效",
        ),
    ),
    knob(
        "tcp_reflect_tos",
        "0",
        "0 or 1",
        text("an accepted connection uses the DSCP of its SYN", "accept 的连接使用其 SYN 的 DSCP"),
        NO_MYTH,
    ),
    knob(
        "tcp_reordering",
        "3",
        "segments",
        text("reordering assumed at the beginning", "初始假定的乱序程度"),
        text(
            "it is not the number of duplicate ACKs: RACK goes by time",
            "它不是重复 ACK 的次数：RACK 按时间判断",
        ),
    ),
    knob(
        "tcp_retrans_collapse",
        "1",
        "0 or 1",
        text("small segments may be joined when repeated", "重传时可合并小报文"),
        NO_MYTH,
    ),
    knob(
        "tcp_retries1",
        "3",
        "an exponent, 0 to 255",
        text(
            "when repeats begin to suspect route and path MTU (3 gives 3 s)",
            "重传多久后开始怀疑路由与路径 MTU（3 为 3 秒）",
        ),
        text("programs see nothing of it", "程序看不到任何变化"),
    ),
    touching(
        knob(
            "tcp_retries2",
            "15",
            "an exponent, 0 to 255",
            text(
                "for how long data of a held socket is repeated before ETIMEDOUT: 15 gives 924 s, 8 gives 102 s; also how many window probes may go unanswered",
                "被持有的套接字重传多久后报 ETIMEDOUT：15 为 924 秒，8 为 102 秒；也是窗口探测可无应答的次数",
            ),
            text(
                "it is not a number of repeats; it does not apply to orphans, nor while a zero window is answered",
                "它不是重传次数；不适用于孤儿，也不适用于零窗口得到应答时",
            ),
        ),
        |row| {
            !row.socket.orphan
                && row.socket.timer.is_some_and(|t| t.kind.name() == "on")
                && matches!(row.socket.state, Established | CloseWait | FinWait1 | LastAck | Closing)
        },
    ),
    touching(
        knob(
            "tcp_rfc1337",
            "0",
            "0 or 1",
            text("1: a RST cannot end TIME-WAIT early", "1：RST 不能提前结束 TIME-WAIT"),
            text("it does not protect other states", "它不保护其他状态"),
        ),
        |row| in_state(row, TimeWait),
    ),
    knob(
        "tcp_rmem",
        "4096 131072 33554432",
        "three numbers of bytes",
        text(
            "receive buffer: least under pressure, first, largest by automatic tuning",
            "接收缓冲：压力下最小、初始、自动调节上限",
        ),
        text(
            "the largest is not limited by net.core.rmem_max; that one limits SO_RCVBUF",
            "上限不受 net.core.rmem_max 限制；后者限制 SO_RCVBUF",
        ),
    ),
    knob(
        "tcp_rto_max_ms",
        "120000",
        "milliseconds, 1000 to 120000",
        text(
            "largest pause between repeats, of new sockets; all give-up times shrink with it",
            "新套接字重传的最大间隔；所有放弃时间随之缩短",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_rto_min_us",
        "200000",
        "microseconds",
        text("smallest time-out, of new sockets", "新套接字的最小超时"),
        text(
            "below the peer's delayed ACK (40 ms and more) it makes needless repeats; give-up times still count from 200 ms",
            "小于对端延迟 ACK（40 毫秒以上）会造成多余重传；放弃时间仍按 200 毫秒计算",
        ),
    ),
    knob(
        "tcp_sack",
        "1",
        "0 or 1",
        text("offer and use selective acknowledgements", "提供并使用选择确认"),
        text("switching it off makes every repair slower", "关闭它会使每次修复更慢"),
    ),
    knob(
        "tcp_shrink_window",
        "0",
        "0 or 1",
        text("1: the window may be taken back when memory runs short", "1：内存不足时可收回已通告的窗口"),
        NO_MYTH,
    ),
    knob(
        "tcp_slow_start_after_idle",
        "1",
        "0 or 1",
        text("start slowly again after a pause longer than the time-out", "停顿超过一个超时后重新慢启动"),
        NO_MYTH,
    ),
    knob(
        "tcp_stdurg",
        "0",
        "0 or 1",
        text(
            "1: the urgent pointer means what RFC 1122 says; 0: what BSD did",
            "1：紧急指针按 RFC 1122；0：按 BSD",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_syn_linear_timeouts",
        "4",
        "time-outs, 0 to 127",
        text(
            "so many first SYN time-outs are not doubled; they come on top of tcp_syn_retries",
            "前若干次 SYN 超时不加倍；另加在 tcp_syn_retries 之上",
        ),
        NO_MYTH,
    ),
    touching(
        knob(
            "tcp_syn_retries",
            "6",
            "an exponent, 1 to 127",
            text("for how long connect() tries: 131 s by default", "connect() 尝试多久：默认 131 秒"),
            text(
                "6 is neither 63 s nor 127 s, because four linear time-outs come first",
                "6 不是 63 秒也不是 127 秒，因为前面还有四次线性超时",
            ),
        ),
        |row| in_state(row, SynSent),
    ),
    touching(
        knob(
            "tcp_synack_retries",
            "5",
            "repeats, 0 to 255",
            text(
                "SYN-ACKs repeated for a half-open connection: 5 keeps it for 63 s, 2 for 7 s",
                "半开连接重发 SYN-ACK 的次数：5 保留 63 秒，2 为 7 秒",
            ),
            NO_MYTH,
        ),
        |row| in_state(row, NewSynRecv),
    ),
    touching(
        knob(
            "tcp_syncookies",
            "1",
            "0 to 2",
            text(
                "1: answer with cookies when a SYN queue is full; 2: always; 0: drop",
                "1：SYN 队列满时用 cookie 应答；2：总是；0：丢弃",
            ),
            text(
                "1 is not \"always\"; and cookies do not help an accept queue that is full",
                "1 不是“总是”；cookie 对已满的 accept 队列没有帮助",
            ),
        ),
        |row| in_state(row, Listen),
    ),
    knob(
        "tcp_thin_linear_timeouts",
        "0",
        "0 or 1",
        text(
            "1: the first six time-outs of flows with little in flight are not doubled",
            "1：在途数据很少的流前六次超时不加倍",
        ),
        NO_MYTH,
    ),
    knob(
        "tcp_timestamps",
        "1",
        "0 to 2",
        text(
            "1: offer timestamps with a random offset; 2: without one; 0: none",
            "1：带随机偏移的时间戳；2：无偏移；0：不使用",
        ),
        text(
            "0 switches tcp_tw_reuse, protection against old segments (PAWS) and undoing of needless repairs off",
            "0 会使 tcp_tw_reuse、旧报文防护（PAWS）和多余修复的撤销都失效",
        ),
    ),
    knob(
        "tcp_tso_rtt_log",
        "9",
        "a shift",
        text("how bursts grow on short round trips", "短往返时突发大小的增长方式"),
        NO_MYTH,
    ),
    knob(
        "tcp_tso_win_divisor",
        "3",
        "a divisor",
        text("one burst takes at most this part of the window", "单次突发最多占窗口的几分之一"),
        NO_MYTH,
    ),
    touching(
        knob(
            "tcp_tw_reuse",
            "2",
            "0 to 2",
            text(
                "connect() may take over a pair in TIME-WAIT whose connection used timestamps, a second after it began: 1 always, 2 on the loopback only",
                "connect() 可在 TIME-WAIT 开始 1 秒后复用使用过时间戳的地址对：1 总是，2 仅环回",
            ),
            text(
                "for outgoing connections only: it does nothing for a server's accepted ones, and shortens no TIME-WAIT",
                "仅对主动发起的连接有效：对服务器接受的连接无作用，也不缩短任何 TIME-WAIT",
            ),
        ),
        |row| in_state(row, TimeWait),
    ),
    touching(
        knob(
            "tcp_tw_reuse_delay",
            "1000",
            "milliseconds",
            text("how old a TIME-WAIT must be to be taken over", "TIME-WAIT 多久之后可被复用"),
            NO_MYTH,
        ),
        |row| in_state(row, TimeWait),
    ),
    knob(
        "tcp_window_scaling",
        "1",
        "0 or 1",
        text("offer and use windows above 64 KiB", "提供并使用大于 64 KiB 的窗口"),
        NO_MYTH,
    ),
    touching(
        knob(
            "tcp_wmem",
            "4096 16384 4194304",
            "three numbers of bytes",
            text(
                "send buffer: least under pressure, first, largest by automatic tuning",
                "发送缓冲：压力下最小、初始、自动调节上限",
            ),
            text(
                "SO_SNDBUF switches automatic tuning off; more of it does not help against a reader that does not read",
                "SO_SNDBUF 会关闭自动调节；调大对不读取的接收方没有帮助",
            ),
        ),
        |row| row.socket.send_q > 0 && !matches!(row.socket.state, Listen | Close),
    ),
    knob(
        "tcp_workaround_signed_windows",
        "0",
        "0 or 1",
        text(
            "cap windows without scaling at 32767, for peers that mistake them for negative",
            "未缩放时把窗口限制为 32767，以适应误判为负数的对端",
        ),
        NO_MYTH,
    ),
];

//! Puts a program behind the lastack TCP/IP stack: namespaces, forwarding, DNS, rules.

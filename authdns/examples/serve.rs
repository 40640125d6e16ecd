//! A DNS server in one call: `serve ADDRESS [NAMES]` answers for `auth.example.org`, with as many dynamic owners of two values as asked for.

use std::net::SocketAddr;

use authdns::{Limits, Name, Server, ZoneConfig, Zones};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().unwrap_or_else(|| "127.0.0.1:5300".to_owned()).parse()?;
    let names: u32 = arguments.next().map_or(Ok(10), |count| count.parse())?;

    let apex: Name = "auth.example.org".parse()?;
    let mut config = ZoneConfig::new(apex.clone(), vec!["ns1.auth.example.org".parse()?], "hostmaster.example.org".parse()?);
    config.records = vec![
        "ns1.auth.example.org. 3600 A 198.51.100.1".parse()?,
        "www.auth.example.org. CNAME Target.auth.example.org.".parse()?,
        "target.auth.example.org. AAAA 2001:db8::1".parse()?,
        "sub.auth.example.org. NS ns.sub.auth.example.org.".parse()?,
        "ns.sub.auth.example.org. A 198.51.100.2".parse()?,
        "*.wild.auth.example.org. TXT anything".parse()?,
    ];
    let zones = Zones::new(vec![config])?;
    let values = |number| [format!("{number:0>43}").into(), format!("{number:x>43}").into()].to_vec();
    let owner = |number| Some((format!("{number:08x}-0000-4000-8000-000000000000.auth.example.org").parse().ok()?, values(number)));
    zones.set_txt(&apex, 2, (0..names).filter_map(owner));

    let server = Server::bind(zones, &[address], Limits::default())?;
    let addresses = server.udp_addresses();
    eprintln!("answering {names} names on {addresses:?}");
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    server.run(shutdown).await;
    Ok(())
}

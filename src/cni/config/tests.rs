use super::*;

fn environment() -> Environment {
    Environment {
        container: "c1".to_owned(),
        namespace: "/run/netns/n".to_owned(),
        interface: "eth0".to_owned(),
        ..Environment::default()
    }
}

fn parse(text: &str) -> Result<Call, Failure> {
    Call::parse(Command::Add, &environment(), text.as_bytes())
}

fn code(text: &str) -> u32 {
    parse(text).unwrap_err().code
}

#[test]
fn a_configuration_is_parsed() {
    let call = parse(
        r#"{"cniVersion":"1.1.0","name":"web","type":"aril-cni","mtu":1400,
            "ipam":{"ranges":[[{"subnet":"10.1.0.0/24","gateway":"10.1.0.9"}],[{"subnet":"fd01::/64"}]]},
            "runtimeConfig":{"portMappings":[
                {"hostPort":8080,"containerPort":80,"protocol":"TCP"},
                {"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"::1"},
                {"hostPort":0,"containerPort":1}],
             "bandwidth":{"ingressRate":8000000,"egressRate":0},"ips":["10.1.0.7/24"]}}"#,
    );
    let call = call.unwrap();
    assert_eq!((call.wanted.name.as_str(), call.wanted.mtu), ("web", Some(1400)));
    assert_eq!(call.wanted.subnets, ["10.1.0.0/24", "fd01::/64"]);
    let published: Vec<_> = call.attachment.published.iter().map(ToString::to_string).collect();
    assert_eq!(published, ["8080:80/tcp", "[::1]:53:53/udp"]);
    assert_eq!(call.attachment.rate, Some(Rate { inward: Some(1_000_000), outward: None }));
    assert_eq!(call.attachment.addresses, ["10.1.0.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(call.ipam, None);
}

#[test]
fn errors_have_the_codes_of_the_specification() {
    assert_eq!(code("{"), DECODE);
    assert_eq!(code(r#"{"cniVersion":"9.9.9","name":"n"}"#), VERSION);
    assert_eq!(code(r#"{"name":"n"}"#), VERSION);
    assert_eq!(code(r#"{"cniVersion":"1.0.0","name":""}"#), INVALID);
    assert_eq!(code(r#"{"cniVersion":"1.0.0","name":"n","ipam":{"subnet":"x"}}"#), INVALID);
    assert_eq!(code(r#"{"cniVersion":"1.0.0","name":"n","prevResult":{}}"#), INVALID);
    let start = r#"{"cniVersion":"1.0.0","name":"n","ipam":{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9"}}"#;
    assert_eq!(code(start), UNSUPPORTED);
    let good = r#"{"cniVersion":"1.0.0","name":"n"}"#;
    for (container, namespace, interface) in
        [("", "/n", "eth0"), ("a/b", "/n", "eth0"), ("c", "", "eth0"), ("c", "/n", "a b")]
    {
        let environment = Environment {
            container: container.to_owned(),
            namespace: namespace.to_owned(),
            interface: interface.to_owned(),
            ..Environment::default()
        };
        let refused = Call::parse(Command::Add, &environment, good.as_bytes()).unwrap_err();
        assert_eq!(refused.code, ENVIRONMENT, "{environment:?}");
    }
    assert_eq!(Environment::default().command().unwrap_err().code, ENVIRONMENT);
}

#[test]
fn ipam_type_selects_the_plugin() {
    let call = parse(
        r#"{"cniVersion":"0.4.0","name":"n","ipam":{"type":"host-local","rangeStart":"10.0.0.9"}}"#,
    );
    let call = call.unwrap();
    assert_eq!((call.ipam.as_deref(), call.wanted.subnets.len()), (Some("host-local"), 0));
    let given = [("10.3.0.7/24".parse().unwrap(), Some("10.3.0.1".parse().unwrap()))];
    assert_eq!(network_of(call.wanted, &given).subnets, ["10.3.0.0/24"]);
    assert_eq!(version_of(b"{}"), "1.1.0");
    assert_eq!(version_of(br#"{"cniVersion":"0.3.1"}"#), "0.3.1");
}

/// The configuration of [`a_configuration_is_parsed`] as go-cni writes it, with the empty values that Go programs
/// write.
#[test]
fn empty_values_of_go_programs_count_as_absent() {
    let call = parse(
        r#"{"CNIVersion":"1.0.0","Name":"web","Bridge":"","MTU":0,"Subnet":"","dns":null,"prevResult":null,
            "IPAM":{"Type":"","Ranges":[[{"Subnet":"10.1.0.0/24","Gateway":"","RangeStart":"","rangeEnd":null}],[]],
                    "routes":null},
            "capabilities":null,"args":null,
            "RuntimeConfig":{"PortMappings":[
                {"HostPort":8080,"ContainerPort":80,"Protocol":"","HostIP":""},
                {"HOSTPORT":53,"containerport":53,"protocol":"UDP","HostIp":"0.0.0.0"},null],
             "Bandwidth":{"IngressRate":8000000,"IngressBurst":1,"EgressRate":0},"IPs":null}}"#,
    );
    let call = call.unwrap();
    assert_eq!((call.wanted.name.as_str(), call.wanted.mtu), ("web", None));
    assert_eq!(call.wanted.subnets, ["10.1.0.0/24"]);
    let published: Vec<_> = call.attachment.published.iter().map(ToString::to_string).collect();
    assert_eq!(published, ["8080:80/tcp", "0.0.0.0:53:53/udp"]);
    assert_eq!(call.attachment.rate, Some(Rate { inward: Some(1_000_000), outward: None }));
    assert_eq!((call.attachment.addresses.len(), call.ipam, call.previous), (0, None, None));
    assert_eq!(version_of(br#"{"CniVersion":"0.3.1"}"#), "0.3.1");
}

#[test]
fn null_counts_as_absent() {
    for member in [
        r#""bridge":null"#,
        r#""subnet":null"#,
        r#""mtu":null"#,
        r#""internal":null,"open":null"#,
        r#""ipam":null"#,
        r#""ipam":{"type":null,"subnet":null,"ranges":null}"#,
        r#""ipam":{"ranges":[null]}"#,
        r#""ipam":{"ranges":[[null]]}"#,
        r#""runtimeConfig":null"#,
        r#""runtimeConfig":{"portMappings":null,"bandwidth":null,"ips":null}"#,
        r#""runtimeConfig":{"portMappings":[null],"ips":[null,""]}"#,
        r#""runtimeConfig":{"portMappings":[{"hostPort":null}],"bandwidth":{"ingressRate":null}}"#,
        r#""dns":null,"prevResult":null,"capabilities":null,"args":null"#,
        r#""cni.dev/valid-attachments":null"#,
    ] {
        let call = parse(&format!(r#"{{"cniVersion":"1.0.0","name":"n",{member}}}"#));
        let call = call.unwrap_or_else(|e| panic!("{member}: {e:?}"));
        assert_eq!(
            call.attachment,
            Attachment { network: "n".to_owned(), over_listeners: true, ..Attachment::default() }
        );
        assert_eq!((call.wanted.subnets.len(), call.ipam), (0, None), "{member}");
    }
    for port in ["-1", "65536", "9999999999"] {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"n","runtimeConfig":{{"portMappings":[{{"hostPort":{port},"containerPort":1}}]}}}}"#
        );
        let refused = parse(&text).unwrap_err();
        assert_eq!(refused.code, INVALID);
        assert!(refused.message.contains(port), "{refused:?}");
    }
}

#[test]
fn a_del_accepts_any_configuration() {
    for input in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"cniVersion":"9.9.9","name":"n"}"#,
        r#"{"cniVersion":"1.0.0","name":"a name","mtu":"x","prevResult":7}"#,
        r#"{"cniVersion":"1.0.0","name":"n","ipam":[],"runtimeConfig":"x"}"#,
        r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"../../bin/sh"}}"#,
    ] {
        let call = Call::of_del(&environment(), input.as_bytes()).unwrap();
        assert_eq!((call.ipam, call.attachment), (None, Attachment::default()), "{input}");
    }
    let other = br#"{"IPAM":{"Type":"host-local"},"subnet":1}"#;
    assert_eq!(Call::of_del(&environment(), other).unwrap().ipam.as_deref(), Some("host-local"));
    assert_eq!(Call::of_del(&Environment::default(), b"{}").unwrap_err().code, ENVIRONMENT);
}

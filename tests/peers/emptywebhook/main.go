// emptywebhook is what every DNS-01 webhook in the field is made of, and nothing else: cert-manager's own webhook library, a map of values, and a DNS
// server that answers out of it. It is the peer of benchmarks: no webhook that is made with the library can be faster than this one.
//
// It takes the flags of the library (`--tls-cert-file`, `--secure-port`, `--kubeconfig`, …) and, from the environment:
//
//	GROUP, SOLVER    the API group and the resource in it
//	ZONE             the zone that it has the authority for, with a final dot
//	DNS              ADDRESS:PORT, where it answers for the zone over UDP and TCP
//
// It says "serving" on standard output when DNS is served and the library has started its solver.
package main

import (
	"fmt"
	"log"
	"os"
	"strings"
	"sync"

	"github.com/cert-manager/cert-manager/pkg/acme/webhook/apis/acme/v1alpha1"
	"github.com/cert-manager/cert-manager/pkg/acme/webhook/cmd"
	"github.com/miekg/dns"
	"k8s.io/client-go/rest"
)

func main() {
	solver := &solver{name: variable("SOLVER"), zone: variable("ZONE"), values: map[string]map[string]struct{}{}}
	for _, network := range []string{"udp", "tcp"} {
		serve(&dns.Server{Addr: variable("DNS"), Net: network, Handler: solver})
	}
	cmd.RunWebhookServer(variable("GROUP"), solver)
}

// solver holds the values that stand, by the lower case of their name.
type solver struct {
	name, zone string
	lock       sync.RWMutex
	values     map[string]map[string]struct{}
}

func (s *solver) Name() string { return s.name }

func (s *solver) Initialize(*rest.Config, <-chan struct{}) error {
	fmt.Println("serving")
	return nil
}

func (s *solver) Present(challenge *v1alpha1.ChallengeRequest) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	name := strings.ToLower(challenge.ResolvedFQDN)
	if s.values[name] == nil {
		s.values[name] = map[string]struct{}{}
	}
	s.values[name][challenge.Key] = struct{}{}
	return nil
}

func (s *solver) CleanUp(challenge *v1alpha1.ChallengeRequest) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	name := strings.ToLower(challenge.ResolvedFQDN)
	delete(s.values[name], challenge.Key)
	if len(s.values[name]) == 0 {
		delete(s.values, name)
	}
	return nil
}

// ServeDNS answers with authority. A name without values is answered as one that exists, so that nobody has to know what is below it.
func (s *solver) ServeDNS(writer dns.ResponseWriter, query *dns.Msg) {
	reply := new(dns.Msg).SetReply(query)
	reply.Authoritative = true
	if query.IsEdns0() != nil {
		reply.SetEdns0(1232, false)
	}
	question := query.Question[0]
	name := strings.ToLower(question.Name)
	switch {
	case name == s.zone && question.Qtype == dns.TypeSOA:
		reply.Answer = append(reply.Answer, s.soa())
	case name == s.zone && question.Qtype == dns.TypeNS:
		reply.Answer = append(reply.Answer, &dns.NS{Hdr: s.header(name, dns.TypeNS), Ns: "ns1." + s.zone})
	case question.Qtype == dns.TypeTXT:
		s.lock.RLock()
		for value := range s.values[name] {
			reply.Answer = append(reply.Answer, &dns.TXT{Hdr: s.header(question.Name, dns.TypeTXT), Txt: []string{value}})
		}
		s.lock.RUnlock()
	}
	if len(reply.Answer) == 0 {
		reply.Ns = append(reply.Ns, s.soa())
	}
	if err := writer.WriteMsg(reply); err != nil {
		log.Printf("dns: %v", err)
	}
}

func (s *solver) soa() dns.RR {
	return &dns.SOA{Hdr: s.header(s.zone, dns.TypeSOA), Ns: "ns1." + s.zone, Mbox: "hostmaster." + s.zone, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: 1}
}

func (s *solver) header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 1}
}

// serve returns when the server listens.
func serve(server *dns.Server) {
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { log.Fatalf("dns over %s: %v", server.Net, server.ListenAndServe()) }()
	<-started
}

func variable(name string) string {
	value := os.Getenv(name)
	if value == "" {
		log.Fatalf("%s is not set", name)
	}
	return value
}

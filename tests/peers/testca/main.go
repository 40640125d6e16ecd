// testca is the certificate authority of acmegate's tests: Pebble, from its public packages, with what a test needs around it.
//
// It takes free ports (-listen and -management default to port 0), mints its own HTTPS certificate, and tells where it is: "directory URL",
// "management URL" and "ready" on standard output, one a line; the root of its HTTPS certificate lies in DIR/https-ca.pem.
// Pebble's environment variables (PEBBLE_VA_NOSLEEP, PEBBLE_WFE_NONCEREJECT, ...) work as in Pebble itself.
//
// Why not Pebble's own program: 2.10.1 hangs under concurrent orders. Its authorization handler waits for the database's lock while it holds
// the authorization's, and newOrder takes the two the other way round; guard lets one request at a time into these two handlers.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

func main() {
	var (
		dir        = flag.String("dir", ".", "folder for https-ca.pem")
		listen     = flag.String("listen", "127.0.0.1:0", "ACME")
		management = flag.String("management", "127.0.0.1:0", "management")
		dnsServer  = flag.String("dnsserver", "", "resolver, host:port (asked over TCP)")
		keys       = flag.String("keys", "ecdsa", "key algorithm of the CA: ecdsa or rsa")
		profiles   = flag.String("profiles", "default=7776000", "name=seconds of validity, comma separated")
		eab        = flag.String("eab", "", "kid=base64url key: requires external account binding")
		block      = flag.String("block", "", "names it refuses, comma separated")
		caa        = flag.String("caa", "pebble.letsencrypt.org", "CAA identities, comma separated")
		alternates = flag.Int("alternates", 0, "alternate roots")
		chain      = flag.Int("chain", 1, "intermediates")
		retry      = flag.Int("retry-after", 1, "seconds, for authorizations and orders")
		strict     = flag.Bool("strict", false, "Pebble's strict mode")
		verbose    = flag.Bool("v", false, "Pebble's log on standard error")
	)
	flag.Parse()
	out := io.Discard
	if *verbose {
		out = os.Stderr
	}
	logger := log.New(out, "", log.LstdFlags|log.Lmicroseconds)
	known := map[string]ca.Profile{}
	for _, p := range strings.Split(*profiles, ",") {
		name, seconds, _ := strings.Cut(p, "=")
		var validity uint64
		if _, err := fmt.Sscan(seconds, &validity); err != nil {
			log.Fatalf("profile %q: %v", p, err)
		}
		known[name] = ca.Profile{Description: name, ValidityPeriod: validity}
	}
	store := db.NewMemoryStore()
	authority := ca.New(logger, store, "", *keys, *alternates, *chain, known)
	validation := va.New(logger, 0, 0, *strict, *dnsServer, store)
	if kid, key, ok := strings.Cut(*eab, "="); ok {
		if err := store.AddExternalAccountKeyByID(kid, key); err != nil {
			log.Fatal(err)
		}
	}
	for _, name := range strings.FieldsFunc(*block, func(r rune) bool { return r == ',' }) {
		if err := store.AddBlockedDomain(name); err != nil {
			log.Fatal(err)
		}
	}
	front := wfe.New(logger, store, validation, authority, strings.Split(*caa, ","), *strict, *eab != "", *retry, *retry)
	cert, root := mint()
	if err := os.WriteFile(filepath.Join(*dir, "https-ca.pem"), root, 0o644); err != nil {
		log.Fatal(err)
	}
	mgmt, err := tls.Listen("tcp", *management, cert)
	if err != nil {
		log.Fatal(err)
	}
	acme, err := tls.Listen("tcp", *listen, cert)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("directory https://%s%s\nmanagement https://%s\nready\n", acme.Addr(), wfe.DirectoryPath, mgmt.Addr())
	read := &authorizations{store: store, ids: map[string]bool{}}
	go func() { log.Fatal(http.Serve(mgmt, read.end(front.ManagementHandler()))) }()
	log.Fatal(http.Serve(acme, guard(read.remember(front.Handler()))))
}

// guard keeps the two handlers whose locks cross from running at the same time.
func guard(next http.Handler) http.Handler {
	var one sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/order-plz" || strings.HasPrefix(r.URL.Path, "/authZ/") {
			one.Lock()
			defer one.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}

// authorizations are those that were read, as every client does before it can use one. Pebble gives all of them an hour; a test that wants them to be over asks for
// /end-authorizations of the management interface.
type authorizations struct {
	store *db.MemoryStore
	mutex sync.Mutex
	ids   map[string]bool
}

func (a *authorizations) remember(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, ok := strings.CutPrefix(r.URL.Path, "/authZ/"); ok {
			a.mutex.Lock()
			a.ids[id] = true
			a.mutex.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}

func (a *authorizations) end(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/end-authorizations" {
			next.ServeHTTP(w, r)
			return
		}
		a.mutex.Lock()
		defer a.mutex.Unlock()
		for id := range a.ids {
			if authz := a.store.GetAuthorizationByID(id); authz != nil {
				authz.Lock()
				authz.ExpiresDate = time.Now().Add(-time.Second)
				authz.Expires = authz.ExpiresDate.UTC().Format(time.RFC3339)
				authz.Unlock()
			}
		}
	})
}

// mint makes a root and a certificate for localhost, 127.0.0.1 and ::1; the root's key is forgotten.
func mint() (*tls.Config, []byte) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	from, to := time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	rootCert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "testca https"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, rootCert, rootCert, rootKey.Public(), rootKey)
	if err != nil {
		log.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: from, NotAfter: to,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, rootCert, key.Public(), rootKey)
	if err != nil {
		log.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"http/1.1"}},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})
}

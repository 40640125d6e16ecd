// goacmedns-hook does for Debian's lego 4 what its acme-dns provider does elsewhere: Debian builds lego without the library that this needs.
//
//	goacmedns-hook present|cleanup -- DOMAIN TOKEN KEY-AUTHORIZATION
//
// is what lego's exec provider calls in its mode RAW. Registration, storage and update are the library's (cpu/goacmedns, the one of lego 4.9); as in lego, the first
// call registers an account and fails with the CNAME to create, and nothing is ever cleaned up. ACME_DNS_API_BASE and ACME_DNS_STORAGE_PATH are lego's.
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"github.com/cpu/goacmedns"
)

func main() {
	if len(os.Args) != 6 || os.Args[2] != "--" {
		fail("usage: goacmedns-hook present|cleanup -- DOMAIN TOKEN KEY-AUTHORIZATION")
	}
	action, domain, keyAuthorization := os.Args[1], os.Args[3], os.Args[5]
	if action != "present" {
		return
	}
	client := goacmedns.NewClient(os.Getenv("ACME_DNS_API_BASE"))
	storage := goacmedns.NewFileStorage(os.Getenv("ACME_DNS_STORAGE_PATH"), 0o600)
	account, err := storage.Fetch(domain)
	if errors.Is(err, goacmedns.ErrDomainNotFound) {
		register(client, storage, domain)
	}
	if err != nil {
		fail(err)
	}
	digest := sha256.Sum256([]byte(keyAuthorization))
	if err := client.UpdateTXTRecord(account, base64.RawURLEncoding.EncodeToString(digest[:])); err != nil {
		fail(err)
	}
}

// register ends the program: a new account is of no use before its CNAME stands.
func register(client goacmedns.Client, storage goacmedns.Storage, domain string) {
	account, err := client.RegisterAccount(nil)
	if err != nil {
		fail(err)
	}
	if err := storage.Put(domain, account); err != nil {
		fail(err)
	}
	if err := storage.Save(); err != nil {
		fail(err)
	}
	fail(fmt.Sprintf("create this record and run again: _acme-challenge.%s. CNAME %s.", domain, account.FullDomain))
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}

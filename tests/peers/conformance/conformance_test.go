// Package conformance puts cert-manager's own suite for DNS-01 webhooks before a webhook door that runs, over HTTPS.
//
// The suite calls a solver inside its own process. Here that solver is cert-manager's client of webhooks, which it calls as its
// controllers do; only where it finds the door is ours.
package conformance

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/webhook"
	acme "github.com/cert-manager/cert-manager/test/acme"
	"k8s.io/client-go/rest"
)

// door is the client, sent to the door of the test and not to the API server that the suite starts for itself.
type door struct {
	webhook.Webhook
	where *rest.Config
}

// Initialize hides the client's own, to swap the API server that it is given.
func (d *door) Initialize(_ *rest.Config, stop <-chan struct{}) error {
	return d.Webhook.Initialize(d.where, stop)
}

// TestConformance runs all of the suite, the strict part too. It takes its orders from the environment:
//
//	DOOR_URL, DOOR_CA           https://HOST:PORT, and the file of the CA of its certificate
//	DOOR_CERT, DOOR_KEY         files of a client certificate; may be absent
//	DOOR_GROUP, DOOR_SOLVER     the API group and the resource in it
//	DOOR_CONFIG                 the solver's config, JSON; may be absent
//	DOOR_ZONE, DOOR_NAME        the zone, and the name in it that gets the values; both with a final dot
//	DOOR_DNS                    HOST:PORT of a server that answers for them
//
// The suite itself wants TEST_ASSET_ETCD, TEST_ASSET_KUBE_APISERVER and TEST_ASSET_KUBECTL: programs that it starts.
func TestConformance(t *testing.T) {
	where := &rest.Config{
		Host: variable(t, "DOOR_URL"),
		TLSClientConfig: rest.TLSClientConfig{
			CAFile:   variable(t, "DOOR_CA"),
			CertFile: os.Getenv("DOOR_CERT"),
			KeyFile:  os.Getenv("DOOR_KEY"),
		},
	}
	solver := map[string]any{"groupName": variable(t, "DOOR_GROUP"), "solverName": variable(t, "DOOR_SOLVER")}
	if config := os.Getenv("DOOR_CONFIG"); config != "" {
		solver["config"] = json.RawMessage(config)
	}
	acme.NewFixture(&door{where: where},
		acme.SetConfig(solver),
		acme.SetResolvedZone(variable(t, "DOOR_ZONE")),
		acme.SetResolvedFQDN(variable(t, "DOOR_NAME")),
		acme.SetDNSServer(variable(t, "DOOR_DNS")),
		// The server is asked, not whoever a resolver says has authority.
		acme.SetUseAuthoritative(false),
		acme.SetStrict(true),
		acme.SetPollInterval(100*time.Millisecond),
		acme.SetPropagationLimit(20*time.Second),
	).RunConformance(t)
}

func variable(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set", name)
	}
	return value
}

// certmanager runs the controllers of cert-manager, unmodified, that issue certificates: by ACME, and those that a chart makes for itself, by a CA in a Secret
// or signed by themselves; and with --cainjector-kubeconfig its CA injector, as whoever that file names.
//
// It stands in for cert-manager's own cmd/controller, which is no package that another module could build. Flags are named as they are there.
// Left out is what a test of DNS-01 has no use for: cert-manager's webhook (it validates and converts objects), ingresses, gateways, leader
// election, and the issuers of other kinds.
//
// It says where its metrics are and then "running" on standard output, one a line.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"github.com/cert-manager/cert-manager/pkg/controller"
	dnsutil "github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/util"
	logf "github.com/cert-manager/cert-manager/pkg/logs"

	// Each package of a controller or of an issuer registers what is in it.
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmeorders"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/acme"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
)

func main() {
	// The common one has flags of libraries' own.
	flags := flag.NewFlagSet("certmanager", flag.ExitOnError)
	var (
		kubeconfig  = flags.String("kubeconfig", "", "who it is, and where the cluster is")
		injector    = flags.String("cainjector-kubeconfig", "", "who the CA injector is; without, there is none")
		clusterNs   = flags.String("cluster-resource-namespace", "cert-manager", "namespace of the secrets of ClusterIssuers")
		nameservers = flags.String("dns01-recursive-nameservers", strings.Join(dnsutil.RecursiveNameservers, ","), "HOST:PORT, comma separated")
		only        = flags.Bool("dns01-recursive-nameservers-only", false, "the self-check asks these alone, not the authoritative servers")
		checkRetry  = flags.Duration("dns01-check-retry-period", 10*time.Second, "between two self-checks")
		challenges  = flags.Int("max-concurrent-challenges", 60, "challenges under way at once")
		workers     = flags.Int("concurrent-workers", 5, "workers of each controller")
		qps         = flags.Float64("kube-api-qps", 20, "requests a second to the API server")
		burst       = flags.Int("kube-api-burst", 50, "requests at once to the API server")
		metrics     = flags.String("metrics-listen-address", "127.0.0.1:0", "where its metrics are")
	)
	klog.InitFlags(flags)
	flags.Parse(os.Args[1:])

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx = logf.NewContext(ctx, logf.Log.WithName("certmanager"))

	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:         *kubeconfig,
		KubernetesAPIQPS:   float32(*qps),
		KubernetesAPIBurst: *burst,
		IssuerOptions: controller.IssuerOptions{
			ClusterResourceNamespace:        *clusterNs,
			ClusterIssuerAmbientCredentials: true,
		},
		ACMEOptions: controller.ACMEOptions{
			HTTP01SolverImage:       "none", // Must be set; no test starts a pod.
			DNS01Nameservers:        strings.Split(*nameservers, ","),
			DNS01CheckAuthoritative: !*only,
			DNS01CheckRetryPeriod:   *checkRetry,
		},
		CertificateOptions: controller.CertificateOptions{
			CopiedAnnotationPrefixes:                 []string{"*", "-kubectl.kubernetes.io/"},
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
		SchedulerOptions: controller.SchedulerOptions{MaxConcurrentChallenges: *challenges},
	})
	check("the cluster", err)
	shared, err := factory.Build()
	check("the cluster", err)

	shared.Metrics.SetupACMECollector(shared.SharedInformerFactory.Acme().V1().Challenges().Lister())
	shared.Metrics.SetupCertificateCollector(shared.SharedInformerFactory.Certmanager().V1().Certificates().Lister())
	listener, err := net.Listen("tcp", *metrics)
	check("metrics", err)
	fmt.Printf("metrics http://%s/metrics\n", listener.Addr())
	go func() {
		if err := shared.Metrics.NewServer(listener).Serve(listener); err != http.ErrServerClosed {
			log.Fatalf("metrics: %v", err)
		}
	}()

	var running sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(controller.Known())) {
		one, err := controller.Known()[name](factory)
		check(name, err)
		running.Go(func() { check(name, one.Run(*workers, ctx)) })
	}
	// Only after all controllers have said what they watch.
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	shared.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	if *injector != "" {
		running.Go(func() { inject(ctx, *injector) })
	}
	fmt.Println("running")
	running.Wait()
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

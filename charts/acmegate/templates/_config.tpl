{{- /* What acmegate listens on inside of the pod. */}}
{{- define "acmegate.ports" -}}
webhook: 8443
metrics: 9090
dns: 5353
acmedns: 8080
{{- end -}}

{{- /* Where HTTP listens, of (context, port): [::] takes IPv4 too. */}}
{{- define "acmegate.listen" -}}
{{- $context := index . 0 -}}
{{- printf "%s:%v" (ternary "[::]" "0.0.0.0" $context.Values.ipv6) (index . 1) -}}
{{- end -}}

{{- /* acmegate's configuration, whole: what the values say, and `config` over it. */}}
{{- define "acmegate.config" -}}
{{- $ports := include "acmegate.ports" . | fromYaml -}}
{{- $webhook := dict
      "listen" (include "acmegate.listen" (list . $ports.webhook))
      "group" .Values.groupName
      "solver" .Values.solverName
      "callers" (dict "cluster" true)
      "policy" (tpl (toYaml .Values.policy) . | fromYamlArray) -}}
{{- if .Values.certManager.enabled -}}
{{- $_ := set $webhook "tls" (dict "certificate" "/etc/acmegate/tls/tls.crt" "key" "/etc/acmegate/tls/tls.key") -}}
{{- else -}}
{{- $_ := set $webhook "service" (dict "name" (include "acmegate.fullname" .) "namespace" .Release.Namespace) -}}
{{- end -}}
{{- $config := dict
      "version" "v1"
      "data" "/var/lib/acmegate/data"
      "webhook" $webhook
      "metrics" (dict "listen" (include "acmegate.listen" (list . $ports.metrics))) -}}
{{- if .Values.dns.enabled -}}
{{- /* The DNS server keeps the families apart. */}}
{{- $listen := list (printf "0.0.0.0:%v" $ports.dns) -}}
{{- if .Values.ipv6 -}}{{- $listen = append $listen (printf "[::]:%v" $ports.dns) -}}{{- end -}}
{{- $_ := set $config "dns" (dict "listen" $listen "zones" .Values.dns.zones) -}}
{{- end -}}
{{- if .Values.acmedns.enabled -}}
{{- $door := dict "listen" (include "acmegate.listen" (list . $ports.acmedns)) "registration" .Values.acmedns.registration -}}
{{- if eq .Values.acmedns.registration "token" -}}{{- $_ := set $door "tokens_env" "ACMEDNS_REGISTRATION_TOKENS" -}}{{- end -}}
{{- if .Values.acmedns.tls.secretName -}}
{{- $_ := set $door "tls" (dict "certificate" "/etc/acmegate/acmedns-tls/tls.crt" "key" "/etc/acmegate/acmedns-tls/tls.key") -}}
{{- end -}}
{{- $_ := set $config "acmedns" $door -}}
{{- end -}}
{{- with .Values.propagation -}}{{- $_ := set $config "propagation" (deepCopy .) -}}{{- end -}}
{{- with .Values.backends -}}{{- $_ := set $config "backends" . -}}{{- end -}}
{{- include "acmegate.merge" (list $config .Values.config) -}}
{{- $config | toYaml -}}
{{- end -}}

{{- /* Merges the second map into the first, in place. Sprig's merge would leave out what is false, 0 or empty. */}}
{{- define "acmegate.merge" -}}
{{- $into := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $into $key)) -}}
{{- include "acmegate.merge" (list (get $into $key) $value) -}}
{{- else -}}
{{- $_ := set $into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* "true" if a rule of the policy asks for labels of namespaces. */}}
{{- define "acmegate.readsNamespaces" -}}
{{- $config := include "acmegate.config" . | fromYaml -}}
{{- range $config.webhook.policy -}}{{- if .selector -}}true{{- end -}}{{- end -}}
{{- end -}}

{{- /* The Secrets that may be read, as a map of namespaces to names: those of `secrets`, and those that backends name. */}}
{{- define "acmegate.secrets" -}}
{{- $grants := dict .Release.Namespace .Values.secrets.names -}}
{{- range $namespace, $names := .Values.secrets.namespaces -}}
{{- $_ := set $grants $namespace (concat (get $grants $namespace | default list) $names) -}}
{{- end -}}
{{- range (include "acmegate.config" . | fromYaml).backends -}}
{{- include "acmegate.secretsIn" (dict "grants" $grants "node" (.settings | default dict) "namespace" $.Release.Namespace) -}}
{{- end -}}
{{- range $namespace, $names := $grants -}}
{{- if $names -}}
{{- dict $namespace ($names | uniq | sortAlpha) | toYaml }}
{{ end -}}
{{- end -}}
{{- end -}}

{{- /* Adds to `grants` every `kubernetes: {name, key, namespace}` below `node`. */}}
{{- define "acmegate.secretsIn" -}}
{{- $grants := .grants -}}
{{- $own := .namespace -}}
{{- if kindIs "map" .node -}}
{{- range $key, $child := .node -}}
{{- if and (eq $key "kubernetes") (kindIs "map" $child) (get $child "name") -}}
{{- $namespace := $child.namespace | default $own -}}
{{- $_ := set $grants $namespace (append (get $grants $namespace | default list) $child.name) -}}
{{- else -}}
{{- include "acmegate.secretsIn" (dict "grants" $grants "node" $child "namespace" $own) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" .node -}}
{{- range .node -}}{{- include "acmegate.secretsIn" (dict "grants" $grants "node" . "namespace" $own) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What the list `certificates` of `config` writes and restarts, as a map of namespaces to {secrets: […], deployments: […]}. */}}
{{- define "acmegate.deploys" -}}
{{- $grants := dict -}}
{{- range (include "acmegate.config" . | fromYaml).certificates -}}
{{- range .store -}}
{{- $secret := get . "secret" -}}
{{- if kindIs "map" $secret -}}{{- $secret = $secret.name -}}{{- end -}}
{{- include "acmegate.grant" (list $grants "secrets" $secret) -}}
{{- end -}}
{{- range .notify -}}
{{- include "acmegate.grant" (list $grants "deployments" (get . "rollout_restart")) -}}
{{- end -}}
{{- end -}}
{{- $grants | toYaml -}}
{{- end -}}

{{- /* Adds NAMESPACE/NAME to the map of "acmegate.deploys", of (map, kind, NAMESPACE/NAME). */}}
{{- define "acmegate.grant" -}}
{{- $grants := index . 0 -}}
{{- $kind := index . 1 -}}
{{- with index . 2 -}}
{{- $place := splitList "/" . -}}
{{- $own := get $grants (first $place) | default dict -}}
{{- $_ := set $own $kind (append (get $own $kind | default list) (last $place) | uniq | sortAlpha) -}}
{{- $_ := set $grants (first $place) $own -}}
{{- end -}}
{{- end -}}

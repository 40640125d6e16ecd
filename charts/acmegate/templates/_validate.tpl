{{- /* What the schema cannot say. Each message names its key and what to do. */}}
{{- define "acmegate.validate" -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas: %v pods would need PostgreSQL, which acmegate does not have yet: the ledger is an SQLite file that one process holds. Set replicas: 1." .Values.replicas) -}}
{{- end -}}
{{- $fullname := include "acmegate.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) -}}
{{- fail (printf "fullnameOverride: %q cannot name a Service: give a name of lower-case letters, digits and '-' that begins with a letter." $fullname) -}}
{{- end -}}
{{- if and .Values.dns.enabled (not .Values.dns.zones) -}}
{{- fail "dns.zones: is empty, and dns.enabled is true: name a zone to serve, or set dns.enabled: false." -}}
{{- end -}}
{{- with .Values.dns.service -}}
{{- if and (not .mixedProtocols) .nodePorts.udp (eq (int .nodePorts.udp) (int .nodePorts.tcp)) -}}
{{- fail (printf "dns.service.nodePorts: Kubernetes gives port %v to one Service alone, and mixedProtocols: false makes two: give them different ports." .nodePorts.udp) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.acmedns.enabled (not .Values.dns.enabled) -}}
{{- fail "acmedns.enabled: the accounts need a zone of the embedded DNS server: set dns.enabled: true and name it in dns.zones." -}}
{{- end -}}
{{- if and .Values.acmedns.enabled (eq .Values.acmedns.registration "token") (not .Values.acmedns.tokensSecret.name) -}}
{{- fail "acmedns.tokensSecret.name: registration: token needs the Secret that holds the tokens: name it, or set acmedns.registration: closed." -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.name: serviceAccount.create is false: name the ServiceAccount that is there." -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) -}}
{{- fail "metrics.service.enabled: the ServiceMonitor needs the metrics Service: set it to true." -}}
{{- end -}}
{{- range $path, $instead := dict
      "version" "appVersion of the chart"
      "data" "persistence"
      "dns.listen" "ipv6"
      "acmedns.listen" "ipv6"
      "acmedns.tls" "acmedns.tls"
      "acmedns.registration" "acmedns.registration"
      "metrics.listen" "ipv6"
      "webhook.listen" "ipv6"
      "webhook.tls" "certManager"
      "webhook.service" "certManager"
      "webhook.group" "groupName"
      "webhook.solver" "solverName" -}}
{{- $node := $.Values.config -}}
{{- range splitList "." $path -}}
{{- if kindIs "map" $node -}}{{- $node = get $node . -}}{{- end -}}
{{- end -}}
{{- if $node -}}
{{- fail (printf "config.%s: objects of the chart depend on it: use the value %s instead." $path $instead) -}}
{{- end -}}
{{- end -}}
{{- range list "dns" "acmedns" -}}
{{- if and (hasKey $.Values.config .) (not (get $.Values . ).enabled) -}}
{{- fail (printf "config.%s: the section is off: set %s.enabled: true first." . .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Names. */}}

{{- define "acmegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* The name of every object: a DNS label (RFC 1035) with room for the suffixes of Services. */}}
{{- define "acmegate.fullname" -}}
{{- $name := include "acmegate.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- $full | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* The name of what has no namespace of its own: no other install has it, for neither part can hold a dot. */}}
{{- define "acmegate.clusterName" -}}
{{- printf "%s.%s" (include "acmegate.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "acmegate.apiServiceName" -}}
{{- printf "v1alpha1.%s" .Values.groupName -}}
{{- end -}}

{{- define "acmegate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "acmegate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "acmegate.claimName" -}}
{{- default (include "acmegate.fullname" .) .Values.persistence.existingClaim -}}
{{- end -}}

{{- define "acmegate.servingSecretName" -}}
{{- printf "%s-tls" (include "acmegate.fullname" .) -}}
{{- end -}}

{{- define "acmegate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Labels. */}}

{{- define "acmegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "acmegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "acmegate.labels" -}}
{{ include "acmegate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The ServiceAccount of acmegate as the subject of a binding. */}}
{{- define "acmegate.subject" -}}
kind: ServiceAccount
name: {{ include "acmegate.serviceAccountName" . }}
namespace: {{ .Release.Namespace }}
{{- end -}}

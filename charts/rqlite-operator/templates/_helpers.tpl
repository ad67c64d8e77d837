{{/* Name of all objects of this release. */}}
{{- define "rqlite-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the operator's pods. The first label is also what databases' NetworkPolicies let in: it never changes. */}}
{{- define "rqlite-operator.selector" -}}
app.kubernetes.io/name: rqlite-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rqlite-operator.labels" -}}
{{ include "rqlite-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{- define "rqlite-operator.account" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "rqlite-operator.fullname" . -}}
{{- else -}}
{{- fail "serviceAccount.create is false: set serviceAccount.name to an account that exists" -}}
{{- end -}}
{{- end -}}

{{/* An image by tag or digest. */}}
{{- define "rqlite-operator.image" -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}
{{- end -}}

{{/* Not empty if the platform assigns users and groups to pods, as OpenShift does: then pods must name none. */}}
{{- define "rqlite-operator.assignsUsers" -}}
{{- $given := toString .Values.openshift -}}
{{- if or (eq $given "true") (and (eq $given "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) -}}
true
{{- end -}}
{{- end -}}

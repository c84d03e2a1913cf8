{{/* Names, labels, and what the profile says where values say `auto`. */}}

{{- define "lockstep.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "lockstep.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "lockstep.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "lockstep.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The name of what belongs to the whole Kubernetes cluster, where another namespace may have a release of this name. */}}
{{- define "lockstep.clusterScopedName" -}}
{{- printf "%s-%s" .Release.Namespace (include "lockstep.fullname" .) -}}
{{- end }}

{{/* The name of the cluster in etcd. */}}
{{- define "lockstep.clusterName" -}}
{{- .Values.clusterName | default (printf "%s.%s" .Release.Namespace (include "lockstep.fullname" .) | trunc 63 | trimSuffix "-" | trimSuffix ".") -}}
{{- end }}

{{- define "lockstep.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lockstep.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "lockstep.labels" -}}
{{ include "lockstep.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: lockstep
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A reference of an image, by digest where there is one. */}}
{{- define "lockstep.imageOf" -}}
{{- $name := .image.repository -}}
{{- with .image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .version) -}}
{{- end -}}
{{- end }}

{{- define "lockstep.image" -}}
{{- include "lockstep.imageOf" (dict "image" .Values.image "version" .Chart.AppVersion) -}}
{{- end }}

{{/* What a profile says about each component; memory is limited where a leak would hurt neighbours. */}}
{{- define "lockstep.profiles" -}}
kind:
  frontend: {replicas: 1, resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 512Mi}}}
  owner: {replicas: 2, bodyCacheMiB: 8, resources: {requests: {cpu: 150m, memory: 192Mi}, limits: {memory: 768Mi}}}
  operator: {resources: {requests: {cpu: 50m, memory: 96Mi}, limits: {memory: 256Mi}}}
  job: {resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 256Mi}}}
  etcd: {resources: {requests: {cpu: 100m, memory: 96Mi}, limits: {memory: 512Mi}}}
  postgres: {resources: {requests: {cpu: 200m, memory: 192Mi}, limits: {memory: 768Mi}}}
production:
  frontend: {replicas: 2, resources: {requests: {cpu: 500m, memory: 256Mi}, limits: {memory: 1Gi}}}
  owner: {replicas: 3, bodyCacheMiB: 64, resources: {requests: {cpu: "1", memory: 1Gi}, limits: {memory: 3Gi}}}
  operator: {resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 512Mi}}}
  job: {resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 256Mi}}}
  etcd: {resources: {requests: {cpu: 250m, memory: 256Mi}, limits: {memory: 1Gi}}}
  postgres: {resources: {requests: {cpu: 500m, memory: 512Mi}, limits: {memory: 2Gi}}}
{{- end }}

{{/* {root, component, key}: a value of a component, or what the profile says for `auto`; as YAML. */}}
{{- define "lockstep.chosen" -}}
{{- $own := index (index .root.Values .component) .key -}}
{{- if eq (toString $own) "auto" -}}
{{- $own = index (index (fromYaml (include "lockstep.profiles" .root)) .root.Values.profile) .component .key -}}
{{- end -}}
{{- int $own -}}
{{- end }}

{{- define "lockstep.etcdMode" -}}
{{- if ne .Values.etcd.mode "auto" }}{{ .Values.etcd.mode }}{{ else }}{{ ternary "bundled" "external" (eq .Values.profile "kind") }}{{ end -}}
{{- end }}

{{- define "lockstep.postgresMode" -}}
{{- if ne .Values.postgresql.mode "auto" }}{{ .Values.postgresql.mode }}{{ else }}{{ ternary "bundled" "external" (eq .Values.profile "kind") }}{{ end -}}
{{- end }}

{{/* host:port of each member of etcd, with commas between them. */}}
{{- define "lockstep.etcdEndpoints" -}}
{{- if eq (include "lockstep.etcdMode" .) "bundled" -}}
{{- printf "%s-etcd.%s.svc:2379" (include "lockstep.fullname" .) .Release.Namespace -}}
{{- else -}}
{{- join "," .Values.etcd.external.endpoints -}}
{{- end -}}
{{- end }}

{{/* The Secret with the connection string of PostgreSQL, and its key. */}}
{{- define "lockstep.dsnSecret" -}}
{{- $mode := include "lockstep.postgresMode" . -}}
{{- if eq $mode "bundled" -}}
name: {{ include "lockstep.fullname" . }}-postgresql
key: dsn
{{- else if eq $mode "cnpg" -}}
name: {{ include "lockstep.fullname" . }}-pg-app
key: uri
{{- else -}}
name: {{ .Values.postgresql.external.existingSecret }}
key: {{ .Values.postgresql.external.dsnKey }}
{{- end -}}
{{- end }}

{{/* {root, enabled, replicas}: "true" if a budget for disruptions belongs to so many pods. */}}
{{- define "lockstep.wantsPdb" -}}
{{- if eq (toString .enabled) "auto" }}{{ gt (int .replicas) 1 }}{{ else }}{{ .enabled }}{{ end -}}
{{- end }}

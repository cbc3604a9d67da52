{{/* The name of the objects: at most 40 characters. A longer one ends with a digest of the whole, so that two long names differ. */}}
{{- define "tally.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- if gt (len $full) 40 -}}
{{- printf "%s-%s" (trunc 31 $full | trimSuffix "-") (sha256sum $full | trunc 8) -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end -}}

{{- define "tally.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tally.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Selector labels never change: not by a newer chart, nor by a value. Called with (list $ "component"). */}}
{{- define "tally.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of objects. Called with (list $ "component" more): those of `more` come before commonLabels. */}}
{{- define "tally.labels" -}}
{{- $root := index . 0 -}}
{{ include "tally.podLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of pods, without versions: a label that changes with the chart would replace, and so drain, every worker. Called like
tally.labels. */}}
{{- define "tally.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "tally.selector" . }}
app.kubernetes.io/part-of: tally
{{- with merge (dict) (default (dict) (index . 2)) $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object. Called with (list $ "component" "suffix" labels annotations). */}}
{{- define "tally.metadata" -}}
{{- $root := index . 0 -}}
{{- $suffix := index . 2 -}}
name: "{{ include "tally.fullname" $root }}{{ with $suffix }}-{{ . }}{{ end }}"
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "tally.labels" (list $root (index . 1) (index . 3)) | nindent 2 }}
{{- $annotations := merge (dict) (default (dict) (index . 4)) $root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "tally.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The address of the coordinators inside the cluster: each of them names the leader. */}}
{{- define "tally.coordinator" -}}
{{ include "tally.fullname" . }}-coordinator.{{ .Release.Namespace }}.svc:{{ .Values.coordinator.service.port }}
{{- end -}}

{{- define "tally.stateDir" -}}
{{- default (printf "%s/.tally/%s/state" (trimSuffix "/" .Values.storage.mountPath) (include "tally.fullname" .)) .Values.coordinator.stateDir -}}
{{- end -}}

{{- define "tally.grace" -}}
{{- $drain := int .Values.worker.drainTimeoutSeconds -}}
{{- if kindIs "invalid" .Values.worker.terminationGracePeriodSeconds -}}
{{- add $drain 30 -}}
{{- else -}}
{{- int .Values.worker.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* Not empty if there is a shared volume. */}}
{{- define "tally.hasStorage" -}}
{{- if or .Values.storage.existingClaim .Values.storage.volume (include "tally.claims" .) }}yes{{ end -}}
{{- end -}}

{{/* Not empty if the chart creates a claim: if storage.claim.create says so, or says nothing and nothing else can hold the journal. */}}
{{- define "tally.claims" -}}
{{- with .Values.storage -}}
{{- if kindIs "bool" .claim.create -}}
{{- if .claim.create }}yes{{ end -}}
{{- else if not (or .existingClaim .volume (include "tally.isInStore" $.Values.coordinator.stateDir)) -}}
yes
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if all pods that mount the volume must run on one node. */}}
{{- define "tally.isOnOneNode" -}}
{{- if and (include "tally.claims" .) (eq .Values.storage.claim.accessMode "ReadWriteOnce") }}yes{{ end -}}
{{- end -}}

{{- define "tally.storage" -}}
name: data
{{- if .Values.storage.volume }}
{{ toYaml .Values.storage.volume }}
{{- else }}
persistentVolumeClaim:
  claimName: {{ default (printf "%s-data" (include "tally.fullname" .)) .Values.storage.existingClaim | quote }}
{{- end }}
{{- end -}}

{{/* Access to object stores. */}}
{{- define "tally.storeEnv" -}}
{{- with .Values.objectStore }}
{{- with .region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- if .caSecret.name }}
- name: AWS_CA_BUNDLE
  value: /etc/tally/store/ca.pem
{{- end }}
{{- end }}
{{- end -}}

{{/* The parent of the folder of `helm test`: with the tables, or with the journal, which ignores other folders. */}}
{{- define "tally.testFolder" -}}
{{- if .Values.test.url -}}
{{- trimSuffix "/" .Values.test.url -}}
{{- else if include "tally.hasStorage" . -}}
{{- printf "%s/.tally/%s" (trimSuffix "/" .Values.storage.mountPath) (include "tally.fullname" .) -}}
{{- else -}}
{{- trimSuffix "/" .Values.coordinator.stateDir -}}
{{- end -}}
{{- end -}}

{{/* The store's authorities, as a volume and as a mount. */}}
{{- define "tally.storeVolumes" -}}
{{- with .Values.objectStore.caSecret }}
{{- if .name }}
- name: store-ca
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: ca.pem
{{- end }}
{{- end }}
{{- end -}}

{{- define "tally.storeMounts" -}}
{{- if .Values.objectStore.caSecret.name }}
- name: store-ca
  mountPath: /etc/tally/store
  readOnly: true
{{- end }}
{{- end -}}

{{/* Secrets of the servers, as volumes and as mounts. */}}
{{- define "tally.secretVolumes" -}}
{{- include "tally.storeVolumes" . }}
{{- with .Values.consul }}
{{- if .url }}
{{- if .tokenSecret.name }}
- name: consul-token
  secret:
    secretName: {{ .tokenSecret.name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .tokenSecret.key | quote }}
        path: token
{{- end }}
{{- if .caSecret.name }}
- name: consul-ca
  secret:
    secretName: {{ .caSecret.name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .caSecret.key | quote }}
        path: ca.pem
{{- end }}
{{- if .clientCertificateSecret.name }}
- name: consul-client
  secret:
    secretName: {{ .clientCertificateSecret.name | quote }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tally.secretMounts" -}}
{{- include "tally.storeMounts" . }}
{{- with .Values.consul }}
{{- if .url }}
{{- if .tokenSecret.name }}
- name: consul-token
  mountPath: /etc/tally/consul/token
  readOnly: true
{{- end }}
{{- if .caSecret.name }}
- name: consul-ca
  mountPath: /etc/tally/consul/ca
  readOnly: true
{{- end }}
{{- if .clientCertificateSecret.name }}
- name: consul-client
  mountPath: /etc/tally/consul/client
  readOnly: true
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tally.consulPrefix" -}}
{{- default (printf "%s/%s" .Release.Namespace (include "tally.fullname" .)) .Values.consul.prefix -}}
{{- end -}}

{{/* Settings for Consul, in the files of both kinds of pods. A URL with a variable is a flag: see tally.consulArg. */}}
{{- define "tally.consulSettings" -}}
{{- with .Values.consul }}
{{- if .url }}
{{- if not (contains "$(" .url) }}
consul = {{ .url | quote }}
{{- end }}
consul-prefix = {{ include "tally.consulPrefix" $ | quote }}
{{- with .namespace }}
consul-namespace = {{ . | quote }}
{{- end }}
{{- with .partition }}
consul-partition = {{ . | quote }}
{{- end }}
{{- with .register }}
consul-register = {{ . | quote }}
{{- end }}
{{- if .tokenSecret.name }}
consul-token-file = "/etc/tally/consul/token/token"
{{- end }}
{{- if .caSecret.name }}
consul-ca-file = "/etc/tally/consul/ca/ca.pem"
{{- end }}
{{- if .clientCertificateSecret.name }}
consul-cert = "/etc/tally/consul/client/tls.crt"
consul-key = "/etc/tally/consul/client/tls.key"
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

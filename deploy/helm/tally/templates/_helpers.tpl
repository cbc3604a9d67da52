{{/* Names. */}}
{{- define "tally.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "tally.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "tally.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tally.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tally.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels: selector labels never change; all others may. Called with (list $ "component"). */}}
{{- define "tally.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "tally.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Called with (list $ "component" more): those of `more` come before commonLabels. */}}
{{- define "tally.labels" -}}
{{- $root := index . 0 -}}
{{ include "tally.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tally
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
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

{{/* Common to all pods. */}}
{{- define "tally.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "tally.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The head of a pod's spec. Called with (list $ values-of-the-component); a dict is enough. */}}
{{- define "tally.pod" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
serviceAccountName: {{ include "tally.serviceAccount" $root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "tally.podSecurity" $root | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $own $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Not empty if there is a shared volume. */}}
{{- define "tally.hasStorage" -}}
{{- with .Values.storage -}}
{{- if or .existingClaim .volume .claim.create }}yes{{ end -}}
{{- end -}}
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

{{/* Settings for Consul, in the files of both kinds of pods. */}}
{{- define "tally.consulSettings" -}}
{{- with .Values.consul }}
{{- if .url }}
consul = {{ .url | quote }}
consul-prefix = {{ .prefix | quote }}
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

{{/* HTTP probes: the start may take five minutes, for a large journal or until Consul responds. */}}
{{- define "tally.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

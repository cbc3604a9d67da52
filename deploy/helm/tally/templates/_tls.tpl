{{/* Certificates: secrets, mounts and settings. */}}

{{/* The secret of a component. Called with (list $ "coordinator"), worker, operator or reader. */}}
{{- define "tally.tlsSecret" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- if eq $root.Values.tls.mode "certManager" -}}
{{- printf "%s-%s-tls" (include "tally.fullname" $root) $role -}}
{{- else -}}
{{- get $root.Values.tls (printf "%sSecret" $role) -}}
{{- end -}}
{{- end -}}

{{/* Called with (list $ role). */}}
{{- define "tally.tlsVolumes" -}}
{{- $root := index . 0 -}}
{{- $tls := $root.Values.tls -}}
{{- if ne $tls.mode "none" }}
- name: tls
  secret:
    secretName: {{ include "tally.tlsSecret" . | quote }}
    defaultMode: 0440
{{- if $tls.rolesConfigMap.name }}
- name: tls-roles
  configMap:
    name: {{ $tls.rolesConfigMap.name | quote }}
    items:
      - key: {{ $tls.rolesConfigMap.key | quote }}
        path: roles.toml
{{- end }}
{{- if and $tls.tokensSecret.name (has (index . 1) (list "coordinator" "worker")) }}
- name: tokens
  secret:
    secretName: {{ $tls.tokensSecret.name | quote }}
    defaultMode: 0440
    items:
      - key: {{ $tls.tokensSecret.key | quote }}
        path: tokens
{{- end }}
{{- end }}
{{- end -}}

{{/* Called with (list $ role). Whole folders, so that renewed certificates appear in them. */}}
{{- define "tally.tlsMounts" -}}
{{- $root := index . 0 -}}
{{- $tls := $root.Values.tls -}}
{{- if ne $tls.mode "none" }}
- {name: tls, mountPath: /etc/tally/tls, readOnly: true}
{{- if $tls.rolesConfigMap.name }}
- {name: tls-roles, mountPath: /etc/tally/roles, readOnly: true}
{{- end }}
{{- if and $tls.tokensSecret.name (has (index . 1) (list "coordinator" "worker")) }}
- {name: tokens, mountPath: /etc/tally/tokens, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* Settings of servers. Called with (list $ role). */}}
{{- define "tally.tlsSettings" -}}
{{- $root := index . 0 -}}
{{- $tls := $root.Values.tls -}}
{{- if eq $tls.mode "none" }}
insecure = true
{{- else }}
tls-ca = "/etc/tally/tls/ca.crt"
tls-cert = "/etc/tally/tls/tls.crt"
tls-key = "/etc/tally/tls/tls.key"
{{- if $tls.rolesConfigMap.name }}
tls-roles = "/etc/tally/roles/roles.toml"
{{- end }}
{{- if and $tls.tokensSecret.name (has (index . 1) (list "coordinator" "worker")) }}
tokens-file = "/etc/tally/tokens/tokens"
{{- end }}
{{- end }}
{{- end -}}

{{/* The environment of commands. */}}
{{- define "tally.tlsEnv" -}}
{{- if ne .Values.tls.mode "none" }}
- {name: TALLY_TLS_CA, value: /etc/tally/tls/ca.crt}
- {name: TALLY_TLS_CERT, value: /etc/tally/tls/tls.crt}
- {name: TALLY_TLS_KEY, value: /etc/tally/tls/tls.key}
{{- if .Values.tls.rolesConfigMap.name }}
- {name: TALLY_TLS_ROLES, value: /etc/tally/roles/roles.toml}
{{- end }}
{{- end }}
{{- end -}}

{{/* The flags of commands that run in a coordinator's pod, each after a space. */}}
{{- define "tally.operatorFlags" -}}
{{- if ne .Values.tls.mode "none" }} --tls-ca /etc/tally/operator/ca.crt --tls-cert /etc/tally/operator/tls.crt --tls-key /etc/tally/operator/tls.key
{{- if .Values.tls.rolesConfigMap.name }} --tls-roles /etc/tally/roles/roles.toml{{ end }}
{{- end }}
{{- end -}}
